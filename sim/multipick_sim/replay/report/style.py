"""Looks and the little script of the page: what a phone, a laptop, light and dark need."""

from typing import Final

COLOURS: Final = ("#d1422f", "#1f77b4", "#2c9a4b", "#8e5bc0", "#e08a1e", "#1aa5a5", "#c2559a", "#7a7f2a", "#5a6a7a")

STYLE: Final = """
:root{color-scheme:light dark;--ink:#1d232a;--dim:#66707c;--paper:#fff;--rule:#dfe3e8;--card:#f7f8fa}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ed;--dim:#9aa4b0;--paper:#14181d;--rule:#2d343c;--card:#1b2127}}
*{box-sizing:border-box}
body{margin:0;font:15px/1.45 system-ui,sans-serif;color:var(--ink);background:var(--paper)}
header,main,footer{max-width:1280px;margin:0 auto;padding:0 16px}
h1{font-size:1.35rem;margin:18px 0 4px;overflow-wrap:anywhere}
h2{font-size:1.1rem;margin:26px 0 8px}
header p{margin:0 0 8px;color:var(--dim)}
pre{margin:0 0 10px;padding:8px 10px;background:var(--card);border:1px solid var(--rule);border-radius:6px;
white-space:pre-wrap;overflow-wrap:anywhere;font-size:13px}
nav{position:sticky;top:0;z-index:1;display:flex;gap:6px;overflow-x:auto;padding:8px 16px;background:var(--paper);
border-bottom:1px solid var(--rule)}
@media(min-width:700px){nav{flex-wrap:wrap;justify-content:center}}
button{flex:none;display:inline-flex;align-items:center;gap:6px;padding:5px 10px;font:inherit;font-size:14px;
color:var(--ink);background:var(--card);border:1px solid var(--rule);border-radius:99px;cursor:pointer}
button[aria-pressed=false]{opacity:.4}
button i,th i{display:inline-block;width:10px;height:10px;border-radius:3px;background:var(--c)}
th i{margin-right:6px}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,340px),1fr));gap:14px;margin-top:12px}
figure{margin:0;padding:10px 8px 6px;background:var(--card);border:1px solid var(--rule);border-radius:8px;min-width:0}
figcaption{font-size:14px;font-weight:600;padding:0 4px 4px}
svg{display:block;width:100%;height:auto}
svg text{font:11px system-ui,sans-serif;fill:var(--dim)}
.frame line{stroke:var(--rule);stroke-width:1}
.line{fill:none;stroke:var(--c);stroke-width:1.2;stroke-dasharray:var(--d);stroke-linejoin:round}
.line circle{fill:var(--c);stroke:none}
.line:hover{stroke-width:4}
.wide{overflow-x:auto;border:1px solid var(--rule);border-radius:8px}
table{border-collapse:collapse;width:100%;font-size:14px;font-variant-numeric:tabular-nums}
th,td{padding:5px 10px;text-align:right;white-space:nowrap;border-bottom:1px solid var(--rule)}
tr:last-child>*{border-bottom:0}
th:first-child{text-align:left;position:sticky;left:0;background:var(--card)}
thead th{font-weight:600;color:var(--dim)}
tbody th{font-weight:500}
.share{display:flex;align-items:center;gap:8px;font-size:13px;margin:3px 4px}
.share span{flex:0 0 36%;overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
.share b{flex:1;display:flex;gap:1px;height:14px}
.share i{flex:1;background:var(--c);border-radius:1px}
footer{margin:28px auto;color:var(--dim);font-size:13px;overflow-wrap:anywhere}
.off{display:none}
"""

# The legend hides and shows what belongs to a policy.
SCRIPT: Final = """
for (const button of document.querySelectorAll("nav button")) button.onclick = () => {
  const shown = button.getAttribute("aria-pressed") !== "true";
  button.setAttribute("aria-pressed", shown);
  for (const part of document.querySelectorAll("main ." + button.dataset.kind)) part.classList.toggle("off", !shown);
};
document.documentElement.dataset.ready = document.querySelectorAll("svg").length;
"""
