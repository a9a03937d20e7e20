// Small mends to the theme's pages.
document.addEventListener("DOMContentLoaded", function () {
  // Wide tables scroll inside their own box, so that a phone's page does not.
  document.querySelectorAll("article table").forEach(function (table) {
    if (table.closest(".pst-scrollable-table-container, .table-scroll, .jp-RenderedHTMLCommon")) return;
    var box = document.createElement("div");
    box.className = "table-scroll";
    box.tabIndex = 0;
    table.parentNode.insertBefore(box, table);
    box.appendChild(table);
  });
});
