"use strict";
(() => {
  const viewer = document.getElementById("viewer");
  if (!viewer) return;
  const places = Array.from(viewer.querySelectorAll(".place"));
  const slide = viewer.querySelector(".slide");
  if (slide) {
    const slider = slide.querySelector("input");
    const label = slide.querySelector("output");
    const show = () => {
      const chosen = Number(slider.value) - 1;
      places.forEach((place, number) => place.classList.toggle("aside", number !== chosen));
      const text = places[chosen].getAttribute("aria-label");
      label.textContent = text;
      slider.setAttribute("aria-valuetext", text);
    };
    slider.addEventListener("input", show);
    slide.hidden = false;
    show();
  }
  // Paper has no switches: it gets every window twice, as it is and with what is laid over it.
  const panels = Array.from(viewer.querySelectorAll(".panels"));
  addEventListener("beforeprint", () => {
    for (const panel of panels) {
      const bare = panel.cloneNode(true);
      bare.classList.add("on-paper");
      for (const image of bare.querySelectorAll("img:not(.raw)")) image.remove();
      panel.before(bare);
    }
  });
  addEventListener("afterprint", () => {
    for (const bare of viewer.querySelectorAll(".on-paper")) bare.remove();
  });
})();
