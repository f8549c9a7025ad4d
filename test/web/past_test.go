package web

import (
	"fmt"
	"testing"

	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
)

// drag draws with the mouse over the chart, from one part of its width to another.
func (p *page) drag(from, to float64) {
	p.t.Helper()
	var box struct{ Left, Top, Width float64 }
	p.eval(`(() => { const r = document.querySelector(".lanes svg.lane").getBoundingClientRect(); return { left: r.left + 36, top: r.top + 60, width: r.width - 44 }; })()`, &box)
	x := func(share float64) float64 { return box.Left + share*box.Width }
	p.do(chromedp.MouseEvent(input.MouseMoved, x(from), box.Top),
		chromedp.MouseEvent(input.MousePressed, x(from), box.Top, chromedp.ButtonLeft),
		chromedp.MouseEvent(input.MouseMoved, x((from+to)/2), box.Top, chromedp.ButtonLeft),
		chromedp.MouseEvent(input.MouseMoved, x(to), box.Top, chromedp.ButtonLeft),
		chromedp.MouseEvent(input.MouseReleased, x(to), box.Top, chromedp.ButtonLeft))
}

// choose clicks a range.
func (p *page) choose(name string) {
	p.t.Helper()
	p.eval(fmt.Sprintf(`[...document.querySelectorAll(".chips .chip")].find((e) => e.textContent === %q).click()`, name), nil)
}

// pieces is of how many parts, with gaps between, an area is.
const pieces = `(document.querySelector(".lanes svg path.area.tone-running").getAttribute("d").match(/M/g) || []).length`

// TestTimelineOfMonths: a year and 90 days are drawn from the ledger, with a gap
// where nobody looked and none on days without a node; from there dragging goes
// down to minutes, and what the ledger cannot know is said.
func TestTimelineOfMonths(t *testing.T) {
	p := newPage(t)
	at := crowd(t, 16, "-days", "300")
	p.do(chromedp.Navigate(at))
	p.until(`location.hash === "#/fleet"`)
	p.look(1440, 900, "light")
	p.eval(`location.hash = "#/timeline"`, nil)
	p.until(`document.querySelector(".lanes svg path.area") !== null`)
	for _, x := range []struct{ name, says string }{{"1 y", "mean of each day"}, {"90 d", "mean of 6 hours"}} {
		p.choose(x.name)
		p.says(x.says)
		p.until(`document.querySelectorAll(".lanes svg path.area").length === 4 && document.querySelectorAll(".past-sums dd").length === 6`)
		p.says("nothing is on record")
		for _, size := range [][2]int64{{390, 844}, {1440, 900}} {
			for _, scheme := range []string{"dark", "light"} {
				p.look(size[0], size[1], scheme)
				name := fmt.Sprintf("timeline %s %d %s", x.name, size[0], scheme)
				p.until(fmt.Sprintf(`Math.abs(document.querySelector(".lanes svg.lane").getBoundingClientRect().width - document.querySelector(".lanes svg.lane").viewBox.baseVal.width) < 2 && innerWidth === %d`, size[0]))
				var over int
				p.eval(`document.documentElement.scrollWidth - innerWidth`, &over)
				if over > 0 {
					t.Errorf("%s: the page is %d px wider than the window", name, over)
				}
				p.keep(name)
			}
		}
		p.accessible("timeline of " + x.name)
		p.clean(x.name)
	}
	p.choose("1 y")
	p.until(pieces + ` === 2`)                                                        // the third week
	p.until(`document.querySelectorAll(".lanes svg:first-of-type .hole").length > 1`) // and before the ledger began
	p.says("on record since")

	p.drag(0.5, 0.65) // some 55 days
	p.says("mean of 6 hours")
	p.until(pieces + ` === 1`)
	p.keep("timeline zoomed to weeks")
	p.drag(0.4, 0.42) // a day, long before the journal
	p.says("No decision of this time is on record any more")
	p.until(`document.querySelectorAll(".lanes svg path.area.tone-running").length === 1 && ` + pieces + ` === 1`)
	p.keep("timeline zoomed to a day long ago")
	p.drag(0.5, 0.52) // minutes of it: what is known is the hour
	p.says("means over hours from the ledger")
	p.do(chromedp.Click(".head .actions button", chromedp.ByQuery))
	p.says("mean of each day")

	// Near the present the ledger goes before the journal in one picture.
	p.choose("7 d")
	p.says("when the journal of decisions begins")
	p.until(`document.querySelector(".lanes svg path.area.tone-running").getAttribute("d").length > 400`)
	p.keep("timeline 7 d with the ledger before the journal")
	p.choose("15 min")
	p.until(`document.querySelector(".chip[aria-pressed=true]").textContent === "15 min" && !document.body.innerText.includes("from the ledger")`)
	p.clean("months")
}

// TestSortingTasksSaysOfHowMany: the page has the newest tasks only, and a sort
// by another column says so until all are there.
func TestSortingTasksSaysOfHowMany(t *testing.T) {
	p := newPage(t)
	at := crowd(t, 700) // 350 tasks
	p.do(chromedp.Navigate(at))
	p.until(`location.hash === "#/fleet"`)
	p.look(1440, 900, "light")
	p.eval(`location.hash = "#/tasks"`, nil)
	p.until(`document.querySelectorAll(".page-tasks .rows .tr").length > 10`)
	var said bool
	p.eval(`document.querySelector(".sorted-of") !== null`, &said)
	if said {
		t.Error("the newest first is the order of all of them")
	}
	p.do(chromedp.Click(`.th .c-waited button`, chromedp.ByQuery))
	p.says("Sorted among the newest 200; there are more")
	p.keep("tasks sorted 1440 light")
	p.look(390, 844, "dark")
	p.keep("tasks sorted 390 dark")
	p.look(1440, 900, "light")
	p.do(chromedp.Click(`.sorted-of button`, chromedp.ByQuery))
	p.until(`document.querySelector(".sorted-of") === null`)
	p.clean("sorted tasks")
}
