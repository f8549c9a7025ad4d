package web

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

//go:embed testdata/axe/axe.min.js
var axe string

// finding is what axe has found wrong.
type finding struct {
	ID, Impact, Help string
	Nodes            []struct {
		Target         []any
		HTML           string
		FailureSummary string
	}
}

// accessible expects that axe finds nothing wrong in what is shown: WCAG 2.2 A
// and AA, and its best practices.
func (p *page) accessible(where string) {
	p.t.Helper()
	var there bool
	if p.eval(`typeof axe === "object"`, &there); !there {
		p.do(chromedp.Evaluate(axe+"; true", nil))
	}
	var raw string
	p.do(chromedp.Evaluate(`axe.run(document, { resultTypes: ["violations"], runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] }).then((r) => JSON.stringify(r.violations))`, &raw, awaitPromise))
	var found []finding
	if err := json.Unmarshal([]byte(raw), &found); err != nil {
		p.t.Fatal(err)
	}
	for _, f := range found {
		for i, n := range f.Nodes {
			if i == 3 {
				p.t.Logf("and %d more", len(f.Nodes)-i)
				break
			}
			p.t.Errorf("%s: %s (%s): %s\n  %v\n  %.200s\n  %s", where, f.ID, f.Impact, f.Help, n.Target, n.HTML, n.FailureSummary)
		}
	}
}

// TestAccessible: every view and what opens over it, light and dark, for a
// desk and for a phone.
func TestAccessible(t *testing.T) {
	p := newPage(t)
	at := crowd(t, 20)
	p.do(chromedp.Navigate(at))
	p.until(`location.hash === "#/fleet"`)
	p.openTask()
	var task, box string
	p.eval(`location.hash`, &task)
	p.eval(`location.hash = "#/agents"`, nil)
	p.until(`document.querySelector('.page-agents .rows a[href^="#/sandbox/"]') !== null`)
	p.eval(`document.querySelector('.page-agents .rows a[href^="#/sandbox/"]').hash`, &box)
	for _, v := range []struct{ name, at, there string }{
		{"fleet", "#/fleet", ".strip"}, {"agents", "#/agents", ".page-agents .rows .c-cpu b"}, {"tasks", "#/tasks", ".page-tasks .rows .tr"},
		{"timeline", "#/timeline", ".lanes, .empty"}, {"nodes", "#/nodes", ".machine"}, {"cost", "#/cost", ".page-cost .head"}, {"patterns", "#/patterns", ".page-patterns .head"}, {"task", task, ".waterfall"}, {"sandbox", box, ".facts"},
	} {
		for _, width := range []int64{1440, 390} {
			for _, scheme := range []string{"light", "dark"} {
				if width == 390 && scheme == "dark" {
					continue // the colours are those of the desk
				}
				p.look(width, 900, scheme)
				p.eval(fmt.Sprintf(`location.hash = %q`, v.at), nil)
				p.until(fmt.Sprintf(`document.querySelector(%q) !== null`, v.there))
				p.accessible(fmt.Sprintf("%s %d %s", v.name, width, scheme))
			}
		}
	}
	for _, scheme := range []string{"light", "dark"} {
		p.look(1440, 900, scheme)
		p.eval(`location.hash = "#/tasks"`, nil)
		p.until(`document.querySelector(".head .primary") !== null`)
		p.do(chromedp.Click(".head .primary", chromedp.ByQuery))
		p.until(`document.querySelector("dialog").open`)
		p.accessible("submit " + scheme)
		p.do(chromedp.KeyEvent(kb.Escape), chromedp.KeyEvent("?"))
		p.until(`document.querySelector(".keys-dialog").open`)
		p.accessible("keys " + scheme)
		p.keep("keys 1440 " + scheme)
		p.do(chromedp.KeyEvent(kb.Escape))
		p.openTask()
		p.do(chromedp.Click(".terminal-open", chromedp.ByQuery))
		p.until(`document.querySelector(".term-box .xterm-rows") !== null`)
		p.accessible("terminal " + scheme)
	}
	p.clean("axe")
	p.do(chromedp.Click(".side-end button[title='Sign out']", chromedp.ByQuery))
	p.until(`document.querySelector("#token") !== null`)
	p.forget() // requests that came too late to be answered
	p.accessible("sign in")
}
