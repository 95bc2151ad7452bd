// Colours of the map: those of the manifest, which pictures for print have too, on light and on dark paper.

import type { Palette } from "./manifest";

const LEVELS = 24;
const DEFAULT: Palette = {
  categorical: [
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9",
    "#146e5f", "#aa3223", "#50d79b", "#aa2350", "#148cf5", "#b9148c",
  ],
  sequential: ["#43039e", "#8b0aa5", "#c03a83", "#e56b5d", "#fba139", "#f9d424"],
  none: "#b8bcc2",
  present: "#d55e00",
};

export interface Theme {
  paper: string;
  plain: string; // a point that nothing is said of
  none: string; // a point without what the colour stands for
  present: string;
  accent: string;
  categorical: string[];
  sequential: string[]; // LEVELS colours from weak to strong
}

const COLOUR = /^#[0-9a-f]{6}$/i;

export function theme(palette: Palette | null | undefined): Theme {
  const { categorical, sequential, none, present } = valid(palette) ? palette : DEFAULT;
  const dark = window.matchMedia("(prefers-color-scheme: dark)").matches;
  return {
    paper: dark ? "#1a2027" : "#ffffff",
    plain: dark ? "#7db8e0" : "#1f5f8b",
    accent: dark ? "#f0a35e" : "#a4420c",
    none, present, categorical,
    sequential: levels(sequential),
  };
}

function valid(palette: Palette | null | undefined): palette is Palette {
  if (!palette) return false;
  const { categorical, sequential, none, present } = palette;
  return categorical.length > 0 && sequential.length > 1
    && [...categorical, ...sequential, none, present].every((colour) => COLOUR.test(colour));
}

function levels(stops: readonly string[]): string[] {
  const mixed = stops.map((hex) => [1, 3, 5].map((at) => Number.parseInt(hex.slice(at, at + 2), 16)));
  return Array.from({ length: LEVELS }, (_, level) => {
    const at = (level / (LEVELS - 1)) * (stops.length - 1);
    const low = Math.min(Math.floor(at), stops.length - 2);
    const channels = (mixed[low] as number[]).map((value, channel) => {
      const next = (mixed[low + 1] as number[])[channel] as number;
      return Math.round(value + (next - value) * (at - low));
    });
    return `#${channels.map((value) => value.toString(16).padStart(2, "0")).join("")}`;
  });
}

export function categorical(colours: Theme, number: number): string {
  return colours.categorical[number % colours.categorical.length] as string;
}
