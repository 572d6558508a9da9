// Shows, for the values of a figure's controls, the frame that was drawn for them. Frames are loaded when a control is touched.
"use strict";
window.courseFrames = {};
for (const figure of document.querySelectorAll(".explore[data-frames]")) {
  const name = figure.dataset.frames, folder = name.slice(0, name.lastIndexOf("/") + 1);
  const image = figure.querySelector("img"), numbers = figure.querySelector("pre"), canvas = document.createElement("canvas");
  const controls = [...figure.querySelectorAll("input")];
  const place = input => input.type === "checkbox" ? Number(input.checked) : Number(input.value);
  const layers = new Map();
  let loading = null, base = null, wanted = 0;

  const load = () => loading ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.onload = () => resolve(window.courseFrames[name]);
    script.onerror = () => { loading = null; reject(new Error("The frames of this figure cannot be loaded.")); };
    script.src = name + ".js";
    document.head.append(script);
  });
  const index = (data, places) => places.reduce((sum, here, i) => sum * data.values[i].length + here, 0);
  const picture = (data, places) => { // each is asked for once
    const file = data.pictures[index(data, places)];
    if (!layers.has(file)) {
      const layer = new Image();
      layer.src = folder + file;
      layer.ready = layer.decode();
      layer.ready.catch(() => layers.delete(file));
      layers.set(file, layer);
    }
    return layers.get(file);
  };
  const fetchNear = (data, places) => places.forEach((here, i) => { // what the next key may ask for
    const last = data.values[i].length - 1;
    for (const near of [here - 1, here + 1, 0, last]) {
      if (near >= 0 && near <= last) picture(data, places.with(i, near));
    }
  });
  const touched = () => load().then(data => fetchNear(data, controls.map(place))).catch(() => {});

  async function show() {
    const mine = ++wanted, places = controls.map(place);
    try {
      const data = await load(), layer = picture(data, places);
      controls.forEach((input, i) => {
        if (input.type !== "range") return;
        input.ariaValueText = input.nextElementSibling.textContent = data.values[i][places[i]];
      });
      await Promise.all([base ??= image.decode(), layer.ready]);
      if (mine !== wanted) return; // a later move was faster
      [canvas.width, canvas.height] = [layer.naturalWidth, layer.naturalHeight];
      for (const each of [image, layer]) canvas.getContext("2d").drawImage(each, 0, 0);
      if (!canvas.isConnected) {
        canvas.role = "img";
        canvas.ariaLabel = image.alt;
        image.replaceWith(canvas);
      }
      numbers.textContent = data.texts[index(data, places)];
      figure.dataset.shown = places.join(" ");
      fetchNear(data, places);
    } catch (error) {
      base = null;
      numbers.textContent = error.message;
    }
  }
  for (const input of controls) {
    input.addEventListener("focus", touched);
    input.addEventListener("pointerdown", touched);
    input.addEventListener("input", show);
  }
}
