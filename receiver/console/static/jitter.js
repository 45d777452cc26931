// A jitter buffer in the audio thread: what comes unevenly is played evenly, and as soon as it can be.
//
// It starts when `target` samples wait. Where it runs dry it waits for as many again, and `target`
// grows. Where more waits than was needed for some seconds, the rest is skipped, and `target`
// shrinks: so the delay is what the network makes necessary, and no more.

const SECONDS = 4; // of audio that fit
const LEAST = 0.06; // seconds that wait before it starts: three packets of 20 ms
const MOST = 0.25;
const FAR_BEHIND = 0.6; // seconds: a burst behind a stall, which nobody would want to hear late
const WINDOW = 3; // seconds over which is looked for the least that waited
const SPARE = 0.03; // seconds of it that stay

class Jitter extends AudioWorkletProcessor {
  constructor() {
    super();
    this.size = Math.ceil(SECONDS * sampleRate);
    this.samples = [new Float32Array(this.size), new Float32Array(this.size)];
    this.written = 0; // frames, since the beginning
    this.read = 0;
    this.target = LEAST * sampleRate;
    this.playing = false;
    this.least = Infinity;
    this.windowEnds = 0;
    this.port.onmessage = ({ data }) => this.write(new Int16Array(data));
  }

  get waiting() {
    return this.written - this.read;
  }

  write(frames) {
    const [left, right] = this.samples;
    for (let at = 0; at + 1 < frames.length; at += 2) {
      const place = this.written % this.size;
      left[place] = frames[at] / 32768;
      right[place] = frames[at + 1] / 32768;
      this.written += 1;
    }
    if (this.waiting > Math.min(FAR_BEHIND * sampleRate + this.target, this.size)) {
      this.skip(this.waiting - this.target);
    }
  }

  skip(frames) {
    const whole = Math.floor(frames);
    this.read += whole;
    this.port.postMessage({ skippedMs: (whole * 1000) / sampleRate });
  }

  process(_, [[left, right]]) {
    if (!this.playing && this.waiting >= this.target) {
      this.playing = true;
      this.startWindow();
    }
    if (!this.playing) return true;
    const frames = Math.min(left.length, this.waiting);
    for (let at = 0; at < frames; at += 1) {
      const place = (this.read + at) % this.size;
      left[at] = this.samples[0][place];
      right[at] = this.samples[1][place];
    }
    this.read += frames;
    this.least = Math.min(this.least, this.waiting);
    if (frames < left.length) {
      this.playing = false;
      this.target = Math.min(MOST * sampleRate, this.target * 1.5);
    } else if (currentTime >= this.windowEnds) {
      this.shorten();
    }
    return true;
  }

  shorten() {
    const spare = SPARE * sampleRate;
    if (this.least > 2 * spare) {
      this.skip(this.least - spare);
      this.target = Math.max(LEAST * sampleRate, this.target * 0.9);
    }
    this.startWindow();
  }

  startWindow() {
    this.least = Infinity;
    this.windowEnds = currentTime + WINDOW;
  }
}

registerProcessor("jitter", Jitter);
