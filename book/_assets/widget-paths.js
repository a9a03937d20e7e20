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
})();
