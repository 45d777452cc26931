// Peaks of a recording (audiowaveform's binary format, version 2) and their picture.

/** Return {rate, samplesPerPixel, length, channels, minima, maxima} with values from -1 to 1. */
export function parsePeaks(bytes) {
  const view = new DataView(bytes);
  if (bytes.byteLength < 24 || view.getInt32(0, true) !== 2) throw new Error("these are no peaks");
  const isByte = (view.getUint32(4, true) & 1) === 1;
  const channels = view.getInt32(20, true);
  const length = view.getUint32(16, true);
  const size = isByte ? 1 : 2;
  const whole = Math.min(length, Math.floor((bytes.byteLength - 24) / (2 * size * channels)));
  const minima = Array.from({ length: channels }, () => new Float32Array(whole));
  const maxima = Array.from({ length: channels }, () => new Float32Array(whole));
  const value = isByte ? (at) => view.getInt8(at) / 128 : (at) => view.getInt16(at, true) / 32768;
  for (let pixel = 0, at = 24; pixel < whole; pixel += 1) {
    for (let channel = 0; channel < channels; channel += 1, at += 2 * size) {
      minima[channel][pixel] = value(at);
      maxima[channel][pixel] = value(at + size);
    }
  }
  const rate = view.getInt32(8, true);
  return { rate, samplesPerPixel: view.getInt32(12, true), length: whole, channels, minima, maxima };
}

/** Return [from, to] in seconds of where no channel has sound for more than a second. */
export function silences(peaks, { quiet = 0.016, shortest = 1, kept = 0.25 } = {}) {
  const second = peaks.rate / peaks.samplesPerPixel;
  const found = [];
  let start = null;
  for (let pixel = 0; pixel <= peaks.length; pixel += 1) {
    const silent = pixel < peaks.length && isQuiet(peaks, pixel, quiet);
    if (silent) {
      start ??= pixel;
    } else if (start !== null) {
      const [from, to] = [start / second + kept, pixel / second - kept];
      if ((pixel - start) / second >= shortest) found.push([start === 0 ? 0 : from, to]);
      start = null;
    }
  }
  return found;
}

function isQuiet(peaks, pixel, quiet) {
  for (let channel = 0; channel < peaks.channels; channel += 1) {
    if (peaks.maxima[channel][pixel] > quiet || -peaks.minima[channel][pixel] > quiet) return false;
  }
  return true;
}

/**
 * Draw one channel over the whole width of a canvas, and hatched spans over it.
 *
 * @param {HTMLCanvasElement} canvas
 * @param {object|null} peaks as parsed; nothing is drawn for null
 * @param {number} channel
 * @param {number} duration seconds that the width stands for
 * @param {{from: number, to: number, look: string}[]} spans in seconds; looks: lost, paused, erased
 * @param {string} colour
 */
export function drawWave(canvas, peaks, channel, duration, spans, colour) {
  const scale = window.devicePixelRatio || 1;
  const { width, height } = canvas.getBoundingClientRect();
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const paint = canvas.getContext("2d");
  paint.scale(scale, scale);
  const middle = height / 2;
  paint.fillStyle = colour;
  paint.globalAlpha = 0.55;
  for (let x = 0; x < width; x += 3) paint.fillRect(x, middle - 0.5, 2, 1);
  paint.globalAlpha = 1;
  if (peaks && channel < peaks.channels) drawBars(paint, peaks, channel, duration, width, height);
  const style = getComputedStyle(canvas);
  for (const { from, to, look } of spans) {
    const x = (from / duration) * width;
    const wide = Math.max(3, ((to - from) / duration) * width);
    drawSpan(paint, x, wide, height, look, style);
  }
}

function drawBars(paint, peaks, channel, duration, width, height) {
  const middle = height / 2;
  const loudest = Math.max(loudestOf(peaks), 0.05);
  const gain = ((height / 2) * 0.9) / loudest;
  const perSecond = peaks.rate / peaks.samplesPerPixel;
  const step = 3;
  for (let x = 0; x < width; x += step) {
    const first = Math.floor((x / width) * duration * perSecond);
    const stop = Math.max(first + 1, Math.floor(((x + step) / width) * duration * perSecond));
    let low = 0;
    let high = 0;
    for (let pixel = first; pixel < Math.min(stop, peaks.length); pixel += 1) {
      low = Math.min(low, peaks.minima[channel][pixel]);
      high = Math.max(high, peaks.maxima[channel][pixel]);
    }
    if (high - low > 0.004) paint.fillRect(x, middle - high * gain, 2, (high - low) * gain);
  }
}

function loudestOf(peaks) {
  peaks.loudest ??= Math.max(
    ...peaks.maxima.map((values) => values.reduce((most, value) => Math.max(most, value), 0)),
    ...peaks.minima.map((values) => values.reduce((most, value) => Math.max(most, -value), 0)),
  );
  return peaks.loudest;
}

function drawSpan(paint, x, width, height, look, style) {
  const strong = style.getPropertyValue(look === "paused" ? "--paused" : "--bad");
  const soft = style.getPropertyValue(look === "paused" ? "--paused-soft" : "--bad-soft");
  paint.save();
  paint.beginPath();
  paint.rect(x, 0, width, height);
  paint.clip();
  paint.fillStyle = look === "silent" ? style.getPropertyValue("--grey-soft") : soft;
  paint.globalAlpha = look === "silent" ? 0.5 : 1;
  paint.fillRect(x, 0, width, height);
  paint.strokeStyle = strong;
  paint.fillStyle = strong;
  if (look === "paused") drawDots(paint, x, width, height);
  else if (look === "erased") drawStripes(paint, x, width, height, 7, 1.2, true);
  else if (look === "lost") drawStripes(paint, x, width, height, 10, 2.6, false);
  paint.restore();
}

function drawDots(paint, x, width, height) {
  for (let left = x + 4; left < x + width; left += 6) {
    for (let top = 4; top < height; top += 6) paint.fillRect(left, top, 2, 2);
  }
}

function drawStripes(paint, x, width, height, apart, thick, crossed) {
  paint.lineWidth = thick;
  paint.beginPath();
  for (let left = x - height; left < x + width + height; left += apart) {
    paint.moveTo(left, height);
    paint.lineTo(left + height, 0);
    if (crossed) {
      paint.moveTo(left, 0);
      paint.lineTo(left + height, height);
    }
  }
  paint.stroke();
}
