element.addEventListener("click", (event) => {
  const cell = event.target.closest("a")?.getAttribute("href")?.match(/cells\/([0-9a-f]+)\//);
  if (!cell) return;
  event.preventDefault();
  trigger("click", { cell: cell[1] });
  document.querySelector("#cell-chosen").scrollIntoView({ behavior: "smooth", block: "start" });
});
