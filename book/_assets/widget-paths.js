// Read before require.js: tells it, and the widget manager, to look for their
// modules and fonts in this site's own folder and nowhere else.
(function () {
  var root = document.documentElement.dataset.content_root || "./";
  var manager = new URL(root + "_static/vendor/html-manager", document.baseURI).href;
  window.__jupyter_widgets_assets_path__ = manager + "/";
  window.require = {
    baseUrl: manager,
    paths: {
      "@jupyter-widgets": manager,
      "@jupyter-widgets/html-manager/dist": manager,
    },
  };
  // The widgets' scripts hand formulas to MathJax 2, whose queue MathJax 3 lacks: without one
  // every widget with a label would stop there, on each page that has a formula.
  var mathjax = window.MathJax;
  Object.defineProperty(window, "MathJax", {
    configurable: true,
    get: function () { return mathjax; },
    set: function (value) {
      mathjax = value;
      if (value && !value.Hub) value.Hub = { Queue: function () {} };
    },
  });
})();
