// Reads a WAV file block by block over HTTP Range, so that an hour is never loaded whole.

const HEAD_BYTES = 8192; // fmt, LIST and the beginning of data; the server cuts LIST to 2,000 bytes
const BLOCK_FRAMES = 32768; // 4 s at 8 kHz
const MOST_BLOCKS = 48;

/** One 16-bit PCM WAV or RF64 file of any length. */
export class WavFile {
  /** @param {string} url of a server that answers Range requests */
  constructor(url) {
    this.url = url;
    this.blocks = new Map(); // by number, the least recently used first
    this.loading = new Map();
  }

  /** Read the header. Throws an Error whose message can be shown. */
  async open() {
    this.opening ??= this.#open().catch((error) => {
      this.opening = undefined; // so that another click tries again
      throw error;
    });
    return this.opening;
  }

  async #open() {
    const head = await this.#range(0, HEAD_BYTES - 1);
    Object.assign(this, parseHead(head));
    return this;
  }

  get duration() {
    return this.frames / this.rate;
  }

  /** Whether all of these frames are in memory. */
  has(start, count) {
    const last = Math.floor(Math.max(start, Math.min(start + count, this.frames) - 1) / BLOCK_FRAMES);
    for (let block = Math.floor(start / BLOCK_FRAMES); block <= last; block += 1) {
      if (!this.blocks.has(block)) return false;
    }
    return true;
  }

  /** Return `count` frames from `start` on, as one Float32Array per channel; 0 behind the end. */
  async read(start, count) {
    await this.open();
    const found = Array.from({ length: this.channels }, () => new Float32Array(count));
    const stop = Math.min(start + count, this.frames);
    for (let at = start; at < stop; ) {
      const number = Math.floor(at / BLOCK_FRAMES);
      const samples = await this.#block(number);
      const offset = at - number * BLOCK_FRAMES;
      const length = Math.min(stop - at, samples.length / this.channels - offset);
      if (length <= 0) break; // the file is shorter than its header says
      for (let frame = 0; frame < length; frame += 1) {
        for (let channel = 0; channel < this.channels; channel += 1) {
          found[channel][at - start + frame] =
            samples[(offset + frame) * this.channels + channel] / 32768;
        }
      }
      at += length;
    }
    return found;
  }

  #block(number) {
    const known = this.blocks.get(number);
    if (known) {
      this.blocks.delete(number);
      this.blocks.set(number, known);
      return known;
    }
    let pending = this.loading.get(number);
    if (!pending) {
      pending = this.#load(number).finally(() => this.loading.delete(number));
      this.loading.set(number, pending);
    }
    return pending;
  }

  async #load(number) {
    const size = this.channels * 2;
    const first = this.dataStart + number * BLOCK_FRAMES * size;
    const stop = this.dataStart + Math.min((number + 1) * BLOCK_FRAMES, this.frames) * size;
    const bytes = await this.#range(first, stop - 1);
    const view = new DataView(bytes);
    const samples = new Int16Array(Math.floor(bytes.byteLength / 2));
    for (let index = 0; index < samples.length; index += 1) {
      samples[index] = view.getInt16(index * 2, true);
    }
    this.blocks.set(number, samples);
    if (this.blocks.size > MOST_BLOCKS) this.blocks.delete(this.blocks.keys().next().value);
    return samples;
  }

  async #range(first, last) {
    let answer;
    try {
      answer = await fetch(this.url, { headers: { Range: `bytes=${first}-${last}` } });
    } catch {
      throw new Error("the server does not answer");
    }
    if (answer.status === 206) return answer.arrayBuffer();
    if (answer.status === 200) return (await answer.arrayBuffer()).slice(first, last + 1);
    if (answer.status === 401) throw new Error("you are signed out; sign in again");
    if (answer.status === 404) throw new Error("the audio is not there any more");
    if (answer.status === 429) throw new Error("too many requests; wait a little");
    throw new Error(`the server answered ${answer.status}`);
  }
}

/** Return {rate, channels, frames, dataStart} of the first bytes of a file. */
export function parseHead(bytes) {
  const view = new DataView(bytes);
  const tag = (at) => String.fromCharCode(...new Uint8Array(bytes, at, 4));
  if (bytes.byteLength < 12 || tag(8) !== "WAVE") throw new Error("this is no WAV file");
  const found = {};
  let longSize = null;
  for (let at = 12; at + 8 <= bytes.byteLength; ) {
    const size = view.getUint32(at + 4, true);
    if (tag(at) === "ds64") longSize = Number(view.getBigUint64(at + 16, true));
    if (tag(at) === "fmt ") {
      if (view.getUint16(at + 22, true) !== 16) throw new Error("the WAV file is not of 16 bits");
      found.channels = view.getUint16(at + 10, true);
      found.rate = view.getUint32(at + 12, true);
    }
    if (tag(at) === "data") {
      const dataBytes = size === 0xffffffff && longSize !== null ? longSize : size;
      return { ...found, dataStart: at + 8, frames: Math.floor(dataBytes / (found.channels * 2)) };
    }
    at += 8 + size + (size % 2);
  }
  throw new Error("the WAV file has no audio");
}
