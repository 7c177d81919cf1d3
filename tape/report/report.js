// Prints what is collapsed, too.
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((one) => (one.open = true)));

// A click on a column's name sorts the table by it; cells without a value are last.
for (const table of document.querySelectorAll("table.sortable")) {
  table.querySelectorAll("thead th").forEach((head, column) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    button.title = "sort by this column";
    head.append(button);
    button.addEventListener("click", () => {
      // numbers, of which mostly the largest are of interest, in descending order first
      const numeric = head.classList.contains("n");
      const before = head.getAttribute("aria-sort");
      const ascending = before ? before === "descending" : !numeric;
      const key = (row) => {
        const cell = row.cells[column];
        return numeric ? parseFloat(cell.dataset.value ?? cell.textContent.replaceAll(",", "")) : cell.textContent;
      };
      const order = (a, b) => {
        const [x, y] = [key(a), key(b)];
        if (!numeric) return x.localeCompare(y, undefined, { numeric: true });
        return x - y;
      };
      const missing = (row) => numeric && Number.isNaN(key(row));
      const rows = [...table.tBodies[0].rows];
      const sorted = rows.filter((row) => !missing(row)).sort((a, b) => (ascending ? order(a, b) : order(b, a)));
      table.querySelectorAll("thead th").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      table.tBodies[0].append(...sorted, ...rows.filter(missing));
    });
  });
}
