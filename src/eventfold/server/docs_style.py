"""The style sheet of the page that shows the OpenAPI document: light and dark, narrow and wide.

Knows: CSS. Does not know: what is shown.
"""

from __future__ import annotations

STYLE = """
:root {
  color-scheme: light dark;
  --ground: light-dark(#ffffff, #14171c);
  --raised: light-dark(#f5f6f8, #1c2027);
  --line: light-dark(#d9dde3, #343a45);
  --text: light-dark(#1b2027, #e6e9ee);
  --quiet: light-dark(#566070, #a2abb9);
  --link: light-dark(#0b57b8, #86b7ff);
  --get: light-dark(#0a6b3d, #6fd3a0);
  --post: light-dark(#0b57b8, #86b7ff);
  --query: light-dark(#6a3fb5, #c3a6ff);
  --put: light-dark(#8a5300, #f0bd6a);
  --delete: light-dark(#b3261e, #ff9d94);
  --mono: ui-monospace, "SF Mono", "Cascadia Mono", "DejaVu Sans Mono", Menlo, Consolas, monospace;
}
* { box-sizing: border-box; }
html { scroll-padding-top: 1rem; }
body {
  margin: 0; background: var(--ground); color: var(--text);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
  overflow-wrap: break-word;
}
a { color: var(--link); text-underline-offset: .15em; }
a:focus-visible, summary:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; border-radius: 3px; }
code, pre { font-family: var(--mono); font-size: .875em; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .5rem; }
h2 { font-size: 1.25rem; margin: 3rem 0 .75rem; padding-bottom: .4rem; border-bottom: 1px solid var(--line); }
h4 { font-size: .8125rem; margin: 1.25rem 0 .4rem; color: var(--quiet); font-weight: 600; }
p { margin: .5rem 0; }
.skip { position: absolute; left: -99rem; }
.skip:focus { left: 1rem; top: 1rem; background: var(--raised); padding: .5rem 1rem; }
main { padding: 1.5rem 1rem 6rem; max-width: 62rem; min-width: 0; }
.quiet { color: var(--quiet); }
.operation { border: 1px solid var(--line); border-radius: 8px; margin: .6rem 0; background: var(--ground); }
.operation > summary {
  display: grid; grid-template-columns: 4.25rem minmax(0, 1fr); gap: .1rem .75rem; align-items: baseline;
  padding: .65rem .9rem; cursor: pointer; list-style: none;
}
.operation > summary::-webkit-details-marker { display: none; }
.operation > summary:hover { background: var(--raised); border-radius: 8px; }
.operation[open] > summary {
  border-bottom: 1px solid var(--line); border-radius: 8px 8px 0 0; background: var(--raised);
}
.operation .path { font-family: var(--mono); font-size: .9rem; font-weight: 600; overflow-wrap: anywhere; }
.operation .what { grid-column: 2; color: var(--quiet); font-size: .9375rem; }
.body { padding: .35rem .9rem 1rem; scroll-margin-top: 5.5rem; }
.method { font-family: var(--mono); font-size: .8125rem; font-weight: 700; }
.get { color: var(--get); } .post { color: var(--post); } .query { color: var(--query); }
.put { color: var(--put); } .delete { color: var(--delete); }
table { border-collapse: collapse; width: 100%; font-size: .9375rem; }
th { text-align: left; font-weight: 600; font-size: .8125rem; color: var(--quiet); }
th, td { padding: .4rem .75rem .4rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
tr:last-child td { border-bottom: 0; }
td:first-child { white-space: nowrap; }
.need { color: var(--delete); font-size: .8125rem; white-space: nowrap; }
pre {
  margin: .4rem 0; padding: .75rem .9rem; background: var(--raised); border: 1px solid var(--line);
  border-radius: 6px; overflow-x: auto; line-height: 1.45; tab-size: 2;
}
.schema { margin: 1.25rem 0; padding-top: .25rem; }
.schema h3 { font-family: var(--mono); font-size: 1rem; margin: 0 0 .25rem; }
nav { font-size: .9375rem; }
nav details { margin: .15rem 0; }
nav summary { cursor: pointer; padding: .3rem 0; font-weight: 600; }
nav ul { list-style: none; margin: 0 0 .5rem; padding: 0; }
nav li a {
  display: grid; grid-template-columns: 3.6rem minmax(0, 1fr); gap: .4rem; padding: .22rem 0;
  text-decoration: none; color: var(--text);
}
nav li a:hover span:last-child { text-decoration: underline; }
nav li .method { font-size: .6875rem; align-self: center; }
nav li span:last-child { overflow-wrap: anywhere; }
@media (max-width: 59.99rem) {
  nav { padding: 1rem 1rem 0; border-bottom: 1px solid var(--line); }
  table, tbody, tr, td { display: block; }
  thead { position: absolute; left: -99rem; }
  tr { padding: .5rem 0; border-bottom: 1px solid var(--line); }
  td, td:first-child { border: 0; padding: .05rem 0; white-space: normal; }
}
@media (min-width: 60rem) {
  body { display: grid; grid-template-columns: 19rem minmax(0, 1fr); }
  nav {
    position: sticky; top: 0; height: 100vh; overflow-y: auto; padding: 1.5rem 1rem 3rem 1.25rem;
    border-right: 1px solid var(--line); background: var(--raised);
  }
  main { padding: 2rem 3rem 8rem; }
}
@media print { nav { display: none; } body { display: block; } }
"""
