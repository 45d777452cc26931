// Faster or slower speech at its own pitch: WSOLA (waveform similarity overlap-add).
//
// Output is made of windows of 40 ms that overlap by half. Each is taken from where the input
// should be by now, moved by up to 10 ms to where it fits best to what was played before. All
// channels are moved together, so that both tracks of a call stay in step.

const WINDOW_SECONDS = 0.04;
const SEARCH_SECONDS = 0.01;

/** Stretches blocks of a continuous signal; pieces in, pieces out. */
export class Stretcher {
  /**
   * @param {number} rate frames per second
   * @param {number} channels how many arrays each block has
   * @param {number} speed 2 is twice as fast
   */
  constructor(rate, channels, speed) {
    this.half = Math.round((rate * WINDOW_SECONDS) / 2);
    this.search = Math.round(rate * SEARCH_SECONDS);
    this.stride = Math.max(1, Math.round(rate / 8000));
    this.speed = speed;
    this.input = Array.from({ length: channels }, () => new Float32Array(0));
    this.dropped = 0; // frames in front of the input that are not needed any more
    this.made = 0; // windows
    this.tail = null; // what the next window overlaps with
    this.window = Float32Array.from(
      { length: this.half },
      (_, index) => 0.5 - 0.5 * Math.cos((Math.PI * (index + 0.5)) / this.half),
    );
  }

  /** Take a block and return all that can be made now, one array per channel. */
  feed(block) {
    this.input = this.input.map((old, channel) => {
      const joined = new Float32Array(old.length + block[channel].length);
      joined.set(old);
      joined.set(block[channel], old.length);
      return joined;
    });
    const pieces = [];
    while (this.#target() + this.search + 2 * this.half <= this.dropped + this.input[0].length) {
      pieces.push(this.#next());
    }
    this.#forget();
    return join(pieces, this.input.length);
  }

  #target() {
    return Math.round(this.made * this.half * this.speed);
  }

  #next() {
    const start = this.tail ? this.#bestNear(this.#target()) : this.#target();
    const at = start - this.dropped;
    const piece = this.input.map((samples, channel) => {
      const out = samples.slice(at, at + this.half);
      if (this.tail) {
        for (let index = 0; index < this.half; index += 1) {
          const rise = this.window[index];
          out[index] = out[index] * rise + this.tail[channel][index] * (1 - rise);
        }
      }
      return out;
    });
    this.tail = this.input.map((samples) => samples.slice(at + this.half, at + 2 * this.half));
    this.made += 1;
    return piece;
  }

  /** Return the start near `target` whose sound is most like the tail. */
  #bestNear(target) {
    let best = target;
    let most = -Infinity;
    const first = Math.max(this.dropped, target - this.search);
    for (let start = first; start <= target + this.search; start += this.stride) {
      let alike = 0;
      let energy = 1e-9;
      this.input.forEach((samples, channel) => {
        const tail = this.tail[channel];
        for (let index = 0; index < this.half; index += this.stride) {
          const sample = samples[start - this.dropped + index];
          alike += sample * tail[index];
          energy += sample * sample;
        }
      });
      const likeness = alike / Math.sqrt(energy);
      if (likeness > most) [best, most] = [start, likeness];
    }
    return best;
  }

  #forget() {
    const needless = Math.min(this.#target() - this.search - this.dropped, this.input[0].length);
    if (needless <= 0) return;
    this.input = this.input.map((samples) => samples.slice(needless));
    this.dropped += needless;
  }
}

function join(pieces, channels) {
  return Array.from({ length: channels }, (_, channel) => {
    const length = pieces.reduce((sum, piece) => sum + piece[channel].length, 0);
    const joined = new Float32Array(length);
    let at = 0;
    for (const piece of pieces) {
      joined.set(piece[channel], at);
      at += piece[channel].length;
    }
    return joined;
  });
}
