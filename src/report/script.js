"use strict";
const figures = [...document.querySelectorAll("figure")];
for (const figure of figures) {
  const svg = figure.querySelector("svg"), out = figure.querySelector("output");
  const cursor = svg.querySelector(".cursor");
  const data = JSON.parse(figure.querySelector("script").textContent);
  const { scale, left, right, series } = data;
  const nearest = (points, step) => {
    let found = points[0];
    for (const point of points) if (Math.abs(point[0] - step) < Math.abs(found[0] - step)) found = point;
    return found;
  };
  const show = (event) => {
    const box = svg.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
    const step = scale.from + (x - left) / (right - left) * (scale.to - scale.from);
    const shown = series.filter(({ points }) => points.length > 0)
      .map(({ name, points }) => [name, ...nearest(points, step)]);
    const update = nearest(shown.map(([, s]) => [s]), step)[0];
    const at = left + (update - scale.from) / (scale.to - scale.from) * (right - left);
    cursor.setAttribute("x1", at);
    cursor.setAttribute("x2", at);
    cursor.style.visibility = "visible";
    const values = shown.map(([name, s, value]) =>
      name + " " + Number(value.toPrecision(6)) + (s === update ? "" : " (update " + s + ")"));
    out.textContent = "update " + update + ": " + values.join(", ");
  };
  svg.addEventListener("pointermove", show);
  svg.addEventListener("pointerdown", show);
  svg.addEventListener("pointerleave", () => { cursor.style.visibility = "hidden"; out.textContent = ""; });
  figure.querySelector("button").addEventListener("click", () => {
    save([figure], 1, figure.querySelector("figcaption").textContent.split(",")[0]);
  });
}
const all = document.querySelector("#all");
if (all) all.addEventListener("click", () => save(figures, 2, "curves"));

// A chart's picture as it is on the page, without the pointer's line.
function picture(svg) {
  const copy = svg.cloneNode(true), parts = [svg, ...svg.querySelectorAll("*")];
  [copy, ...copy.querySelectorAll("*")].forEach((node, i) => {
    const style = getComputedStyle(parts[i]);
    for (const name of ["fill", "stroke", "stroke-width"])
      node.style.setProperty(name, style.getPropertyValue(name));
    node.style.setProperty("font", "12px " + style.fontFamily);
  });
  copy.querySelector(".cursor").remove();
  const { width, height } = svg.viewBox.baseVal;
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  copy.setAttribute("width", 2 * width);
  copy.setAttribute("height", 2 * height);
  const text = new XMLSerializer().serializeToString(copy), image = new Image();
  image.setAttribute("src", "data:image/svg+xml;charset=utf-8," + encodeURIComponent(text));
  return image.decode().then(() => image);
}

// Charts with their titles and keys, side by side, as a PNG.
async function save(chosen, columns, name) {
  const { width, height } = chosen[0].querySelector("svg").viewBox.baseVal;
  const top = 34, gap = 16, style = getComputedStyle(document.body);
  const rows = Math.ceil(chosen.length / columns);
  const canvas = document.createElement("canvas"), context = canvas.getContext("2d");
  canvas.width = 2 * (gap + columns * (width + gap));
  canvas.height = 2 * (gap + rows * (top + height + gap));
  context.scale(2, 2);
  context.fillStyle = style.backgroundColor;
  context.fillRect(0, 0, canvas.width, canvas.height);
  for (const [i, figure] of chosen.entries()) {
    const x = gap + (i % columns) * (width + gap);
    const y = gap + Math.floor(i / columns) * (top + height + gap);
    context.fillStyle = style.color;
    context.font = "600 15px " + style.fontFamily;
    context.fillText(figure.querySelector("figcaption").textContent, x, y + 16);
    context.font = "13px " + style.fontFamily;
    let end = x + width - 12;
    for (const key of [...figure.querySelectorAll(".legend span")].reverse()) {
      end -= context.measureText(key.textContent).width;
      context.fillStyle = getComputedStyle(key).color;
      context.fillText(key.textContent, end, y + 16);
      context.fillStyle = getComputedStyle(key, "::before").borderTopColor;
      context.fillRect(end - 20, y + 10, 14, 3);
      end -= 36;
    }
    context.drawImage(await picture(figure.querySelector("svg")), x, y + top, width, height);
  }
  const link = document.createElement("a");
  link.download = name + ".png";
  link.setAttribute("href", canvas.toDataURL("image/png"));
  link.click();
}
