/* Disk calls that fail, wait or kill on demand: preloaded into the receiver by the fault tests.

   The file named by TAPREEL_FAULTS holds one order per line, read again at every call:

       call action argument path

   call: fdatasync, fsync, syncfs, pwrite, rename, exchange, unlink. action: delay (ms), error (errno),
   before and after (SIGKILL to the whole process group; the argument is not used). path: part
   of the file's name that the order is for ("/" is in all of them). */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

enum moment { BEFORE, AFTER };

static void wait_ms(long ms) {
    struct timespec rest = {ms / 1000, ms % 1000 * 1000000};
    while (nanosleep(&rest, &rest) && errno == EINTR) {
    }
}

/* Do what the orders say; return the error the call must fail with, or 0. */
static int follow(const char *call, const char *path, enum moment moment) {
    const char *orders = getenv("TAPREEL_FAULTS");
    FILE *file = orders ? fopen(orders, "re") : NULL;
    char line[512], name[32], action[32], part[256];
    int error = 0;
    long argument;
    while (file && fgets(line, sizeof line, file)) {
        if (sscanf(line, "%31s %31s %ld %255s", name, action, &argument, part) != 4) continue;
        if (strcmp(name, call) || !strstr(path, part)) continue;
        if (moment == BEFORE && !strcmp(action, "delay")) wait_ms(argument);
        if (moment == BEFORE && !strcmp(action, "error")) error = (int)argument;
        if (!strcmp(action, moment == BEFORE ? "before" : "after")) kill(0, SIGKILL);
    }
    if (file) fclose(file);
    return error;
}

static const char *path_of(int descriptor) {
    static __thread char path[4096];
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    path[length < 0 ? 0 : length] = 0;
    return path;
}

#define REAL(type, name) ((type)dlsym(RTLD_NEXT, #name))

#define FOLLOWING(call, path, real)                  \
    int error = follow(call, path, BEFORE);          \
    if (error) {                                   \
        errno = error;                             \
        return -1;                                 \
    }                                              \
    __typeof__(real) result = real;                \
    int kept = errno;                              \
    follow(call, path, AFTER);                       \
    errno = kept;                                  \
    return result

typedef int by_descriptor(int);
typedef int by_path(const char *);
typedef int by_paths(const char *, const char *);
typedef int by_paths_at(int, const char *, int, const char *);
typedef int exchanging(int, const char *, int, const char *, unsigned);
typedef ssize_t writing(int, const void *, size_t, off_t);

int fdatasync(int fd) { FOLLOWING("fdatasync", path_of(fd), REAL(by_descriptor *, fdatasync)(fd)); }

int fsync(int fd) { FOLLOWING("fsync", path_of(fd), REAL(by_descriptor *, fsync)(fd)); }

int syncfs(int fd) { FOLLOWING("syncfs", path_of(fd), REAL(by_descriptor *, syncfs)(fd)); }

int unlink(const char *path) { FOLLOWING("unlink", path, REAL(by_path *, unlink)(path)); }

int rename(const char *from, const char *to) {
    FOLLOWING("rename", from, REAL(by_paths *, rename)(from, to));
}

int renameat(int within, const char *from, int into, const char *to) {
    FOLLOWING("rename", from, REAL(by_paths_at *, renameat)(within, from, into, to));
}

int renameat2(int within, const char *from, int into, const char *to, unsigned flags) {
    FOLLOWING("exchange", from, REAL(exchanging *, renameat2)(within, from, into, to, flags));
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off_t offset) {
    FOLLOWING("pwrite", path_of(fd), REAL(writing *, pwrite64)(fd, bytes, count, offset));
}
