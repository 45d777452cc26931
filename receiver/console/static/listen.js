// One call that is heard while it is spoken: a socket, a jitter buffer, both sides panned apart.
//
//   socket -> jitter.js (worklet: left is the caller, right the agent) -> splitter
//          -> gain of each side -> panner of each side -> volume -> what people hear

const PAN = 0.6; // to the left and right; at 1 a side would be in one ear only
const REPORT_BYTES = 8192; // a quarter of a second

export class LiveAudio {
  /** `onText` gets what is to be known while it plays, `onEnd` why it has ended. */
  constructor(id, url, { worklet, onText, onEnd }) {
    Object.assign(this, { id, url, worklet, onText, onEnd });
    this.ending = false; // the call is over, as the page knows
    this.stopped = false;
    this.sound = [1, false, false];
    this.lost = 0; // milliseconds that did not come here
    this.skipped = 0; // milliseconds that came too late to be heard
  }

  /** Start to play; resolves when the socket is open. */
  async start() {
    // Within the click: browsers let no page make sound by itself.
    this.context = new AudioContext({ latencyHint: "interactive", sampleRate: 8000 });
    const resumed = this.context.resume();
    await this.prepare();
    await resumed;
    if (this.stopped) return;
    this.socket = new WebSocket(this.url);
    this.socket.binaryType = "arraybuffer";
    this.read = 0;
    this.reported = 0;
    this.socket.onmessage = ({ data }) => this.receive(data);
    this.socket.onclose = ({ code, reason }) => this.closed(code, reason);
  }

  /** Build what the samples go through, at the rate of the context. */
  async prepare() {
    const context = this.context;
    await context.audioWorklet.addModule(this.worklet);
    this.node = new AudioWorkletNode(context, "jitter", { numberOfInputs: 0, outputChannelCount: [2] });
    this.node.port.onmessage = ({ data }) => this.played(data);
    const splitter = context.createChannelSplitter(2);
    this.volume = context.createGain();
    this.sides = [-PAN, PAN].map((pan, channel) => {
      const gain = context.createGain();
      const panner = new StereoPannerNode(context, { pan });
      splitter.connect(gain, channel);
      gain.connect(panner).connect(this.volume);
      return gain;
    });
    this.node.connect(splitter);
    this.volume.connect(context.destination);
    this.setSound(...this.sound);
  }

  /** Set the volume, from 0 to 1, and which sides are muted. */
  setSound(volume, callerMuted, agentMuted) {
    this.sound = [volume, callerMuted, agentMuted];
    if (!this.sides) return;
    const now = this.context.currentTime;
    this.volume.gain.setTargetAtTime(volume, now, 0.02); // a step would click
    this.sides[0].gain.setTargetAtTime(callerMuted ? 0 : 1, now, 0.02);
    this.sides[1].gain.setTargetAtTime(agentMuted ? 0 : 1, now, 0.02);
  }

  /** End; nothing is called back any more. */
  stop() {
    this.stopped = true;
    this.socket?.close();
    this.context?.close().catch(() => {}); // it is closed already
  }

  async receive(data) {
    if (this.stopped) return;
    if (typeof data === "string") {
      this.tell(JSON.parse(data));
      return;
    }
    this.read += data.byteLength;
    if (this.read - this.reported >= REPORT_BYTES) {
      this.reported = this.read;
      this.socket.send(String(this.read));
    }
    this.node.port.postMessage(data, [data]);
  }

  tell(event) {
    if (event.event === "started") {
      this.onText("live");
      if (event.rate !== this.context.sampleRate) this.changeRate(event.rate);
    } else if (event.event === "gap" && event.reason === "slow_listener") {
      this.lost += event.duration_ms;
      this.show();
    }
  }

  /** Samples of another rate than 8000 need a context of their own rate. */
  async changeRate(rate) {
    const before = this.context;
    this.context = new AudioContext({ latencyHint: "interactive", sampleRate: rate });
    await this.prepare();
    before.close();
  }

  played({ skippedMs }) {
    this.skipped += skippedMs;
    this.show();
  }

  show() {
    const seconds = (ms) => `${(ms / 1000).toFixed(1)} s`;
    const words = ["live"];
    if (this.lost) words.push(`${seconds(this.lost)} did not come: this connection is slow`);
    if (this.skipped >= 100) words.push(`${seconds(this.skipped)} skipped, to stay live`);
    this.onText(words.join(" · "));
  }

  closed(code, reason) {
    if (this.stopped) return;
    if (code === 1000) this.onEnd("The call has ended.");
    else if (code === 1008) this.onEnd("You may no longer listen: sign in again.");
    else if (code === 1013) this.onEnd("This connection is too slow to listen.");
    else this.onEnd(this.ending ? "The call has ended." : "Listening broke off: try again.");
  }
}
