/*
 * A doctor's page: makes a link to one study (?study=<id of the ImagingStudy>), shows it once, lists and ends links.
 *
 * The token comes as it does to the viewer: in the fragment, taken out of the address at once, or from this tab's session.
 */
"use strict";
(() => {
  const TOKEN = "yixie.token";
  const PLAIN = /^[A-Za-z0-9._~+/=-]{16,512}$/;
  const STATES = { open: "有效 open", expired: "已过期 expired", revoked: "已撤销 revoked" };
  const element = (id) => document.getElementById(id);

  const fragment = new URLSearchParams(location.hash.slice(1));
  if (fragment.has("token")) {
    history.replaceState(null, "", location.pathname + location.search);
    if (PLAIN.test(fragment.get("token"))) {
      sessionStorage.setItem(TOKEN, fragment.get("token"));
    }
  }
  const study = new URLSearchParams(location.search).get("study") || "";
  const place = `/fhir/ImagingStudy/${encodeURIComponent(study)}`;

  const tell = (text) => {
    element("trouble").textContent = text;
    element("trouble").hidden = false;
  };

  const ask = async (operation, parameters) => {
    const answer = await fetch(`${place}/${operation}`, {
      method: parameters ? "POST" : "GET",
      headers: {
        Authorization: `Bearer ${sessionStorage.getItem(TOKEN)}`,
        "Content-Type": "application/fhir+json",
      },
      body: parameters ? JSON.stringify({ resourceType: "Parameters", parameter: parameters }) : undefined,
    });
    const body = await answer.json();
    if (!answer.ok) {
      const [issue] = body.issue;
      throw new Error(`${issue.details ? issue.details.text : ""} ${issue.diagnostics || ""}`);
    }
    return body.parameter || [];
  };

  const value = (parts, name) => {
    const found = parts.find((one) => one.name === name) || {};
    const key = Object.keys(found).find((one) => one.startsWith("value"));
    return key ? found[key] : "";
  };
  const local = (text) => new Date(text).toLocaleString("zh-CN", { dateStyle: "medium", timeStyle: "short" });

  const show = (parts) => {
    const pictures = parts.filter((one) => one.name === "qr").map((one) => one.valueAttachment);
    const picture = (type) => {
      const one = pictures.find((known) => known.contentType === type);
      return `data:${type};base64,${one.data}`;
    };
    element("institution").textContent = value(parts, "institution");
    element("qr").src = picture("image/svg+xml");
    element("png").href = picture("image/png");
    element("secret").textContent = value(parts, "password");
    element("expires").textContent = local(value(parts, "expires"));
    element("url").textContent = value(parts, "url");
    element("ask").hidden = true;
    element("made").hidden = false;
  };

  const list = async () => {
    const shares = await ask("$shares");
    const rows = shares.map(({ part }) => {
      const row = document.createElement("tr");
      const opened = part.filter((one) => one.name === "access")
        .filter(({ part: access }) => value(access, "what") === "share-open" && value(access, "outcome") === "0");
      const cells = [
        local(value(part, "created")), local(value(part, "expires")), STATES[value(part, "state")], String(opened.length),
      ];
      for (const text of cells) {
        row.insertCell().textContent = text;
      }
      const last = row.insertCell();
      if (value(part, "state") === "open") {
        const button = document.createElement("button");
        button.className = "quiet";
        button.textContent = "撤销 Revoke";
        button.addEventListener("click", () => {
          ask("$revoke-share", [{ name: "share", valueId: value(part, "id") }]).then(list).catch((error) => tell(error.message));
        });
        last.append(button);
      }
      return row;
    });
    element("rows").replaceChildren(...rows);
    element("listed").hidden = rows.length === 0;
  };

  if (!study || !sessionStorage.getItem(TOKEN)) {
    tell("请从检查记录进入此页面。Please come here from the study: /share/?study=ID#token=TOKEN");
    return;
  }
  element("ask").hidden = false;
  element("print").addEventListener("click", () => window.print());
  element("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    element("trouble").hidden = true;
    const given = [{ name: "history", valueBoolean: element("history").checked }];
    if (element("days").value) {
      given.push({ name: "days", valueInteger: Number(element("days").value) });
    }
    for (const name of ["purpose", "note"]) {
      if (element(name).value.trim()) {
        given.push({ name, valueString: element(name).value.trim() });
      }
    }
    ask("$share", given).then(show).then(list).catch((error) => tell(error.message));
  });
  list().catch((error) => tell(error.message));
})();
