// Plays both tracks of a recording in step to the sample.
//
// There is one clock: an AudioContext that runs at the recording's own rate. Both tracks are
// channels of the same AudioBuffer, so they cannot drift apart, and buffers are started at whole
// frames one behind the other, so no joint can be heard. What is scheduled is kept as pieces
// (context time -> place in the recording), from which the position is read.

import { Stretcher } from "./stretch.js";

const AHEAD_SECONDS = 1.5; // background tabs are woken once a second
const FIRST_SECONDS = 0.12; // a short first piece, so that sound comes soon
const PIECE_SECONDS = 0.5;
const LEAD_SECONDS = 0.02;

/**
 * Events: "state" when it begins or ends to play or wait, "failed" with `detail` the reason,
 * "sounding" with `detail` the milliseconds from play or seek to the first sound, "span" with
 * `detail` {from, to} of what was heard without a break.
 */
export class Player extends EventTarget {
  /** @param {import("./wav.js").WavFile[]} files one mono file per track, or one of two channels */
  constructor(files) {
    super();
    this.files = files;
    this.state = "paused"; // or "waiting" (for the server), "playing"
    this.duration = 0;
    this.speed = 1;
    this.skipped = []; // [from, to] in seconds: what is not played, where `skips` is true
    this.skips = false;
    this.heard = files.map(() => true);
    this.gains = [];
    this.place = 0; // where it stands while nothing is scheduled
    this.pieces = [];
    this.run = 0; // grows with every play, pause and seek: what an older one awaits is void
  }

  /** Read the headers. Throws an Error whose message can be shown. */
  async open() {
    await Promise.all(this.files.map((file) => file.open()));
    this.rate = this.files[0].rate;
    this.duration = Math.max(...this.files.map((file) => file.duration));
  }

  get position() {
    if (this.state !== "playing") return this.place;
    const now = this.context.currentTime;
    const piece = this.pieces.find((each) => now < each.until);
    if (!piece) return this.place;
    const share = Math.max(0, now - piece.at) / (piece.until - piece.at);
    return piece.from + share * (piece.to - piece.from);
  }

  play() {
    if (this.state !== "paused") return;
    if (this.duration && this.place >= this.duration - 0.05) this.place = 0;
    this.#start();
  }

  pause() {
    if (this.state === "paused") return;
    this.#stop();
    this.#enter("paused");
  }

  toggle() {
    if (this.state === "paused") this.play();
    else this.pause();
  }

  /** Go to a place in seconds, and go on playing there if it plays. */
  seek(seconds) {
    const plays = this.state !== "paused";
    if (plays) this.#stop();
    this.place = Math.max(0, Math.min(seconds, this.duration || seconds));
    if (plays) this.#start();
    else this.dispatchEvent(new Event("state"));
  }

  setSpeed(speed) {
    this.speed = speed;
    if (this.state !== "paused") this.seek(this.position);
  }

  setSkips(skips) {
    this.skips = skips;
    if (this.state !== "paused") this.seek(this.position);
  }

  /** Say for each track whether it is heard. */
  setHeard(heard) {
    this.heard = heard;
    this.gains.forEach((gain, index) => {
      gain.gain.setTargetAtTime(heard[index] ? 1 : 0, this.context.currentTime, 0.01);
    });
  }

  /** Begin to play; it resolves at once, and events tell the rest. */
  #start() {
    const run = (this.run += 1);
    this.#enter("waiting");
    this.#run(run, performance.now()).catch((error) => {
      if (run === this.run) this.#fail(error);
    });
  }

  async #run(run, asked) {
    await this.open();
    if (run !== this.run) return;
    this.#wire();
    await this.context.resume();
    if (run === this.run) await this.#fill(run, asked);
  }

  #wire() {
    if (this.context) return;
    this.context = new AudioContext({ sampleRate: this.rate, latencyHint: "interactive" });
    const tracks = this.files.length === 1 ? this.files[0].channels : this.files.length;
    this.splitter = this.context.createChannelSplitter(tracks);
    this.gains = Array.from({ length: tracks }, (_, index) => {
      const gain = this.context.createGain();
      const side = this.context.createStereoPanner();
      side.pan.value = tracks === 1 ? 0 : index === 0 ? -0.4 : 0.4;
      gain.gain.value = (this.heard[index] ?? true) ? 1 : 0;
      this.splitter.connect(gain, index).connect(side).connect(this.context.destination);
      return gain;
    });
  }

  /** Schedule what comes, until a pause, a seek or the end. */
  async #fill(run, asked) {
    const feeder = new Feeder(this, Math.round(this.place * this.rate));
    let next = 0;
    let started = false;
    this.from = this.place;
    for (;;) {
      const seconds = started ? PIECE_SECONDS : FIRST_SECONDS;
      if (started && !feeder.isLoaded(seconds) && next - this.context.currentTime < 0.05) {
        this.#enter("waiting");
      }
      const piece = await feeder.next(seconds);
      if (run !== this.run) return;
      if (!piece) break;
      next = this.#schedule(piece, next);
      if (!started || this.state === "waiting") {
        this.#enter("playing");
        if (!started) this.#announce(asked);
        started = true;
      }
      await this.#drop(run, next - AHEAD_SECONDS);
      if (run !== this.run) return;
    }
    await this.#drop(run, next);
    if (run !== this.run) return;
    this.place = this.duration;
    this.#report(this.duration);
    this.pieces = [];
    this.run += 1;
    this.#enter("paused");
  }

  #announce(asked) {
    const detail = performance.now() - asked + LEAD_SECONDS * 1000;
    this.dispatchEvent(new CustomEvent("sounding", { detail }));
  }

  #schedule(piece, next) {
    const frames = piece.samples[0].length;
    const buffer = this.context.createBuffer(piece.samples.length, frames, this.rate);
    piece.samples.forEach((samples, channel) => buffer.copyToChannel(samples, channel));
    const source = this.context.createBufferSource();
    source.buffer = buffer;
    source.connect(this.splitter);
    const now = this.context.currentTime + LEAD_SECONDS;
    const earliest = Math.ceil(now * this.rate) / this.rate;
    const at = next > this.context.currentTime ? next : earliest; // late: it goes on from now
    source.start(at);
    const until = Math.round(at * this.rate + frames) / this.rate;
    this.pieces.push({ at, until, from: piece.from, to: piece.to, skips: piece.skips, source });
    return until;
  }

  /** Wait for the clock to reach a time; forget what was played meanwhile. */
  async #drop(run, time) {
    for (;;) {
      const now = this.context.currentTime;
      while (this.pieces.length && this.pieces[0].until <= now) {
        const done = this.pieces.shift();
        this.place = done.to;
        if (this.pieces.length && this.pieces[0].from - done.to > 0.01) {
          this.#report(done.to); // a skipped silence was not heard
          this.from = this.pieces[0].from;
        }
      }
      if (now >= time || run !== this.run) return;
      await new Promise((done) => setTimeout(done, Math.min(200, Math.max(5, (time - now) * 1000))));
      if (run !== this.run) return;
    }
  }

  #stop() {
    if (this.state === "playing") {
      this.place = this.position;
      this.#report(this.place);
    }
    this.run += 1;
    for (const piece of this.pieces) piece.source.stop();
    this.pieces = [];
  }

  #report(to) {
    if (to > this.from) {
      this.dispatchEvent(new CustomEvent("span", { detail: { from: this.from, to } }));
    }
    this.from = to;
  }

  /** Report what was heard so far, also in the middle of it. */
  reportSoFar() {
    if (this.state === "playing") this.#report(this.position);
  }

  #enter(state) {
    if (state === this.state) return;
    this.state = state;
    this.dispatchEvent(new Event("state"));
  }

  #fail(error) {
    this.#stop();
    this.#enter("paused");
    this.dispatchEvent(new CustomEvent("failed", { detail: error.message }));
  }
}

/** Yields pieces of a recording from a frame on: silence left out, speed changed. */
class Feeder {
  constructor(player, start) {
    this.player = player;
    this.at = start; // the next frame that is read
    this.stop = Math.round(player.duration * player.rate);
    this.#restart();
  }

  isLoaded(seconds) {
    const count = Math.round(seconds * this.player.rate * this.player.speed);
    return this.player.files.every((file) => file.has(this.at, count));
  }

  /** Return {from, to, samples}, or nothing at the end. */
  async next(seconds) {
    const { rate, speed } = this.player;
    for (;;) {
      if (this.#skip()) this.#restart();
      if (this.at >= this.stop) return null;
      const wanted = Math.max(Math.round(seconds * rate * speed), Math.round(0.1 * rate));
      const count = Math.min(wanted, this.#untilSkip() - this.at);
      const samples = await this.#read(this.at, count);
      this.at += count;
      const from = this.reached / rate;
      const made = this.stretcher ? this.stretcher.feed(samples) : samples;
      if (made[0].length === 0) continue;
      this.reached += made[0].length * speed;
      return { from, to: Math.min(this.reached, this.stop) / rate, samples: made };
    }
  }

  async #read(start, count) {
    const files = this.player.files;
    const found = await Promise.all(files.map((file) => file.read(start, count)));
    return found.flat();
  }

  #restart() {
    const { rate, speed, files } = this.player;
    const channels = files.length === 1 ? files[0].channels : files.length;
    this.stretcher = speed === 1 ? null : new Stretcher(rate, channels, speed);
    this.reached = this.at; // what was handed out so far ends here
  }

  #skip() {
    const { rate, skips, skipped } = this.player;
    const second = this.at / rate;
    const span = skips && skipped.find(([from, to]) => from <= second && second < to - 0.01);
    if (!span) return false;
    this.at = Math.min(this.stop, Math.round(span[1] * rate));
    return true;
  }

  #untilSkip() {
    const { rate, skips, skipped } = this.player;
    const next = skips && skipped.find(([from]) => from * rate > this.at);
    return next ? Math.min(this.stop, Math.round(next[0] * rate)) : this.stop;
  }
}
