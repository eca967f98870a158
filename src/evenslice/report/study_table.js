"use strict";
(() => {
  const table = document.getElementById("cells-table");
  const form = document.getElementById("cells-filter");
  const count = document.getElementById("cells-count");
  if (!table || !form || !count) return;
  const body = table.tBodies[0];
  const rows = Array.from(body.rows, (row, place) => ({ row, place, words: row.textContent.toLowerCase() }));
  const heads = Array.from(table.tHead.rows[0].cells);
  const choices = Array.from(form.querySelectorAll("select"));
  const search = form.querySelector("input");

  const key = (row, column) => row.cells[column].dataset.key ?? row.cells[column].textContent.trim();

  function filter() {
    const wanted = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const { row, words } of rows) {
      const fits = choices.every((one) => one.value === "" || key(row, Number(one.dataset.column)) === one.value)
        && wanted.every((word) => words.includes(word));
      row.hidden = !fits;
      shown += fits;
    }
    count.textContent = `${shown} of ${rows.length} cells shown`;
  }

  function compare(one, other, column, numbers) {
    const [a, b] = [key(one.row, column), key(other.row, column)];
    if (a === "" || b === "") return (a === "") - (b === "") || one.place - other.place;
    const order = numbers ? Number(a) - Number(b) : a.localeCompare(b, "en", { numeric: true });
    return (down ? -order : order) || one.place - other.place;
  }

  let down = false;
  function sort(head, column) {
    down = head.getAttribute("aria-sort") === "ascending";
    for (const other of heads) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    rows.sort((one, other) => compare(one, other, column, "number" in head.dataset));
    body.append(...rows.map(({ row }) => row));
  }

  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(head, column));
    head.append(button);
  });
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(filter));
  form.hidden = false;
  filter();
})();
