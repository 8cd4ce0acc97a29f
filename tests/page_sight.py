"""How a page looks to an eye: the contrast of every text to its paper, and colours as some eyes see them."""

from __future__ import annotations

import io

import numpy as np
from chromium import Chromium
from PIL import Image


def colour_of(browser: Chromium, selector: str) -> np.ndarray:
    """The commonest colour of the first such element, its paper, as the eye that is emulated sees it."""
    pixels = np.asarray(Image.open(io.BytesIO(browser.screenshot(selector))).convert("RGB"), dtype=int).reshape(-1, 3)
    colours, counts = np.unique(pixels, axis=0, return_counts=True)
    return colours[counts.argmax()]


# The lowest ratios of text to paper, with their texts: relative luminance as WCAG defines it, backgrounds laid over
# one another from the page up.
CONTRASTS = """(() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    const d = canvas.getImageData(0, 0, 1, 1).data; return [d[0], d[1], d[2], d[3] / 255];
  };
  const over = (top, under) => [0, 1, 2].map((i) => top[3] * top[i] + (1 - top[3]) * under[i]);
  const light = (c) => c.slice(0, 3).map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const paper = (e) => e === document.documentElement ? rgba(getComputedStyle(e).backgroundColor)
    : over(rgba(getComputedStyle(e).backgroundColor), paper(e.parentElement));
  return [...document.querySelectorAll("body *")]
    .filter((e) => e.checkVisibility() && !e.closest("svg, script"))
    .filter((e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()))
    .map((e) => {
      const under = paper(e), ink = over(rgba(getComputedStyle(e).color), under);
      const [low, high] = [light(ink), light(under)].sort((a, b) => a - b);
      return [(high + 0.05) / (low + 0.05), e.textContent.trim().slice(0, 40), e.className];
    }).sort((a, b) => a[0] - b[0]).slice(0, 5);
})()"""
