"use strict";
for (const figure of document.querySelectorAll("figure")) {
  const svg = figure.querySelector("svg"), out = figure.querySelector("output");
  const cursor = svg.querySelector(".cursor");
  const data = JSON.parse(figure.querySelector("script").textContent);
  const { scale, left, right, series } = data;
  const show = (event) => {
    const box = svg.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
    const step = scale.from + (x - left) / (right - left) * (scale.to - scale.from);
    let nearest = null;
    for (const { points } of series)
      for (const [s] of points)
        if (nearest === null || Math.abs(s - step) < Math.abs(nearest - step)) nearest = s;
    if (nearest === null) return;
    const at = left + (nearest - scale.from) / (scale.to - scale.from) * (right - left);
    cursor.setAttribute("x1", at);
    cursor.setAttribute("x2", at);
    cursor.style.visibility = "visible";
    const values = series.flatMap(({ name, points }) => {
      const found = points.find(([s]) => s === nearest);
      return found ? [name + " " + Number(found[1].toPrecision(6))] : [];
    });
    out.textContent = "update " + nearest + ": " + values.join(", ");
  };
  svg.addEventListener("pointermove", show);
  svg.addEventListener("pointerdown", show);
  svg.addEventListener("pointerleave", () => { cursor.style.visibility = "hidden"; out.textContent = ""; });
  figure.querySelector("button").addEventListener("click", () => {
    const copy = svg.cloneNode(true), parts = [svg, ...svg.querySelectorAll("*")];
    [copy, ...copy.querySelectorAll("*")].forEach((node, i) => {
      const style = getComputedStyle(parts[i]);
      for (const name of ["fill", "stroke", "stroke-width", "font", "visibility"])
        node.style.setProperty(name, style.getPropertyValue(name));
    });
    const { width, height } = svg.viewBox.baseVal;
    copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
    copy.setAttribute("width", width);
    copy.setAttribute("height", height);
    const image = new Image();
    image.onload = () => {
      const canvas = document.createElement("canvas");
      canvas.width = 2 * width;
      canvas.height = 2 * height;
      const context = canvas.getContext("2d");
      context.fillStyle = getComputedStyle(document.body).backgroundColor;
      context.fillRect(0, 0, canvas.width, canvas.height);
      context.drawImage(image, 0, 0, canvas.width, canvas.height);
      const link = document.createElement("a");
      link.download = figure.querySelector("figcaption").textContent.split(",")[0] + ".png";
      link.setAttribute("href", canvas.toDataURL("image/png"));
      link.click();
    };
    const text = new XMLSerializer().serializeToString(copy);
    image.setAttribute("src", "data:image/svg+xml;charset=utf-8," + encodeURIComponent(text));
  });
}
