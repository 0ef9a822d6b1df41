/*
 * Starts the viewer with the user's token, or asks for one.
 *
 * The token comes in the fragment of the address (#token=...), which browsers send to nobody, or from the form. It is
 * taken out of the address at once, kept in this tab's session storage and sent as a bearer token, never as a cookie: a
 * page of another site can therefore make this browser ask nothing in its name.
 */
"use strict";
(() => {
  const TOKEN = "yixie.token";
  const EXPIRED = "yixie.expired";
  const CONFIGURATION = "/viewer/own/app-config.js";
  const PLAIN = /^[A-Za-z0-9._~+/=-]{16,512}$/;
  const { script, style, first } = document.currentScript.dataset;

  // Two names that the viewer's own start page defines for it.
  window.PUBLIC_URL = "/viewer/";
  window.browserImportFunction = (name) => import(name);

  const fragment = new URLSearchParams(location.hash.slice(1));
  if (fragment.has("token")) {
    const given = fragment.get("token");
    history.replaceState(null, "", location.pathname + location.search);
    if (PLAIN.test(given)) {
      sessionStorage.setItem(TOKEN, given);
      sessionStorage.removeItem(EXPIRED);
    }
  }

  // The viewer reads its language here; whoever has chosen one keeps it.
  if (!localStorage.getItem("i18nextLng")) {
    localStorage.setItem("i18nextLng", "zh");
  }

  window.yixie = Object.freeze({
    authorization: () => {
      const token = sessionStorage.getItem(TOKEN);
      return token ? { Authorization: `Bearer ${token}` } : {};
    },
    // The hub did not take the token: forget it, and ask for another at the same address.
    leave: () => {
      if (sessionStorage.getItem(TOKEN)) {
        sessionStorage.removeItem(TOKEN);
        sessionStorage.setItem(EXPIRED, "1");
        location.reload();
      }
    },
    // The hub refused an image with this status. What is on the screen stays; whoever reads on must know why no more comes.
    refused: (status) => {
      if (status === 401) {
        window.yixie.leave();
      } else if (status === 404 && !document.getElementById("gone")) {
        const notice = document.createElement("p");
        notice.id = "gone";
        notice.setAttribute("role", "alert");
        notice.textContent = "有影像已取不到：已被删除，或您的查看权限已结束。Some images can no longer be had: "
          + "they were removed, or your access has ended.";
        notice.addEventListener("click", () => notice.remove());
        document.body.append(notice);
      }
    },
    // Every study of the address as one ZIP file (PS3.18 section 8.6.1.3). The browser keeps a large one on its disk.
    download: async () => {
      const asked = new URLSearchParams(location.search).getAll("StudyInstanceUIDs").join(",");
      for (const study of asked.split(",").filter(Boolean)) {
        await save(study);
      }
    },
  });

  const save = async (study) => {
    const answer = await fetch(`/dicom-web/studies/${encodeURIComponent(study)}`, {
      headers: { ...window.yixie.authorization(), Accept: "application/zip" },
    }).catch(() => null);
    if (answer && answer.status === 401) {
      window.yixie.leave();
      return;
    }
    const data = answer && answer.ok ? await answer.blob().catch(() => null) : null;
    if (data === null) {
      const why = answer && answer.status === 404
        ? "检查不存在，或您无权查看。The study does not exist, or you may not see it."
        : "请检查网络，稍后重试。Check the network and try again.";
      window.alert(`下载未完成 Not downloaded：${why}`);
      return;
    }
    const link = document.createElement("a");
    link.href = URL.createObjectURL(data);
    link.download = `${study}.zip`;
    link.click();
    // The browser has taken hold of the data by then; a minute is for the one that asks where to put it.
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  };

  // The program learns only by running which of its parts it needs, in five waves of requests. All are asked for here at
  // once, while it is still on its way itself; who has no token yet pays for nothing.
  const fetchAhead = () => {
    for (const address of [style, CONFIGURATION, script, ...first.split(" ").filter(Boolean)]) {
      const link = document.createElement("link");
      link.rel = "preload";
      link.as = address.endsWith(".css") ? "style" : "script";
      link.href = address;
      document.head.append(link);
    }
  };

  const load = (address) => {
    const element = document.createElement("script");
    element.src = address;
    element.async = false;
    document.head.append(element);
  };

  const start = () => {
    document.getElementById("entry").remove();
    const sheet = document.createElement("link");
    sheet.rel = "stylesheet";
    sheet.href = style;
    document.head.append(sheet);
    load(CONFIGURATION);
    load(script);
  };

  const ask = () => {
    document.getElementById("entry").hidden = false;
    document.getElementById("expired").hidden = !sessionStorage.getItem(EXPIRED);
    document.getElementById("enter").addEventListener("submit", (event) => {
      event.preventDefault();
      const given = document.getElementById("token").value.trim();
      if (PLAIN.test(given)) {
        sessionStorage.setItem(TOKEN, given);
        sessionStorage.removeItem(EXPIRED);
        location.reload();
      } else {
        document.getElementById("expired").hidden = false;
      }
    });
  };

  const known = sessionStorage.getItem(TOKEN) !== null;
  if (known) {
    fetchAhead();
  }
  document.addEventListener("DOMContentLoaded", known ? start : ask);
})();
