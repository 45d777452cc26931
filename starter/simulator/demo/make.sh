#!/usr/bin/env bash
# Speaks the demo conversation anew: needs espeak-ng and sox, writes inbound.wav and outbound.wav here.
set -euo pipefail
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
seconds=20

# sox -D everywhere: without dither pauses are exact silence, and every run gives the same files

# say TRACK START_SECONDS VOICE PITCH TEXT: one line of the conversation at its place on the stream's clock
say() {
  local line="$work/$1-$2.wav"
  espeak-ng -v "$3" -p "$4" -s 165 -w "$work/spoken.wav" "$5"
  sox -D "$work/spoken.wav" -r 8000 -c 1 "$line" norm -6 pad "$2"
}

shop() { say outbound "$1" en-gb+f3 55 "$2"; }
caller() { say inbound "$1" en-us+m3 40 "$2"; }

shop 0.5 "Good morning, Harbour Bicycles, this is Alice."
caller 2.0 "Hello! Yes, hello, this is Bob."
caller 5.0 "I left a red bicycle with you last week. Is it ready?"
shop 7.6 "One moment, let me look."
shop 11.4 "Yes, it is ready. The brakes are new, and the bell works again."
caller 14.2 "Oh, that is good news. When do you close?"
shop 16.4 "At six o'clock. See you then."
caller 18.4 "Thank you, goodbye!"

for track in inbound outbound; do
  lines=("$work/$track"-*.wav)
  sox -V1 -D -m "${lines[@]}" "$work/$track.wav" gain -n -3 pad 0 "$seconds" trim 0 "$seconds"
  sox -D "$work/$track.wav" -e mu-law -b 8 -r 8000 -c 1 "$track.wav"
done
