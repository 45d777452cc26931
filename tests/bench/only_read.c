/* The floor: an epoll loop in C that answers the upgrade, then reads and throws away. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static const char upgraded[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";

static int listen_on_loopback(void) {
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, size) || listen(listener, 512) ||
        getsockname(listener, (struct sockaddr *)&address, &size))
        return -1;
    printf("listening %d\n", ntohs(address.sin_port));
    fflush(stdout);
    return listener;
}

int main(void) {
    static char block[65536];
    struct epoll_event ready[64], watched = {.events = EPOLLIN};
    int listener = listen_on_loopback(), queue = epoll_create1(0);
    watched.data.fd = listener;
    if (listener < 0 || queue < 0 || epoll_ctl(queue, EPOLL_CTL_ADD, listener, &watched))
        return 1;
    for (;;) {
        int count = epoll_wait(queue, ready, 64, -1);
        for (int i = 0; i < count; i++) {
            int socket = ready[i].data.fd;
            if (socket == listener) {
                watched.data.fd = accept(listener, NULL, NULL);
                epoll_ctl(queue, EPOLL_CTL_ADD, watched.data.fd, &watched);
                continue;
            }
            ssize_t length = read(socket, block, sizeof block);
            if (length <= 0)
                close(socket);
            else if (length > 4 && block[0] == 'G' && !memcmp(block + length - 4, "\r\n\r\n", 4))
                length = write(socket, upgraded, sizeof upgraded - 1);
        }
    }
}
