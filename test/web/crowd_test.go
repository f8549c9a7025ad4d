package web

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/cdproto/performance"
	"github.com/chromedp/chromedp"
)

// crowd starts test/crowd, a fleet with fake sandboxes, and returns the link
// that signs in; MUSTER_CROWD is that of one that runs already.
func crowd(t testing.TB, n int, more ...string) string {
	t.Helper()
	if at := os.Getenv("MUSTER_CROWD"); at != "" {
		return at
	}
	c := exec.Command(program(t, "test/crowd"), append([]string{"-sandboxes", strconv.Itoa(n)}, more...)...)
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	said := &journal{}
	c.Stderr = said
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Signal(syscall.SIGTERM)
		_, _ = io.Copy(io.Discard, out)
		if err := c.Wait(); err != nil {
			t.Errorf("crowd: %v: %s", err, said)
		}
	})
	line := make(chan string, 1)
	go func() {
		s, _ := bufio.NewReader(out).ReadString('\n')
		line <- strings.TrimSpace(s)
	}()
	select {
	case at := <-line:
		if at == "" {
			t.Fatalf("crowd said: %s", said)
		}
		return at
	case <-time.After(10 * time.Minute):
		t.Fatalf("%d fake sandboxes were not there within ten minutes: %s", n, said)
	}
	return ""
}

// frames scrolls the list by whole screens and parts of one, as a wheel does,
// for some seconds and returns how long each frame took, in milliseconds.
const frames = `((seconds, step) => new Promise((done) => {
  const box = document.querySelector(".table");
  const took = [];
  let rows = 0, missing = 0, last = 0, began = 0;
  const frame = (now) => {
    if (!began) began = now;
    if (last) took.push(now - last);
    last = now;
    rows = Math.max(rows, document.querySelectorAll(".rows > *").length);
    missing += document.querySelectorAll(".rows .coming").length;
    if (now - began > seconds * 1000) return done({ took, rows, missing, top: box.scrollTop });
    if (box.scrollTop + box.clientHeight >= box.scrollHeight - 1) box.scrollTop = 0;
    else box.scrollTop += step;
    requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
}))(%g, %d)`

type scrolled struct {
	Took    []float64
	Rows    int
	Missing int
	Top     float64
}

// TestScrollingACrowd: the list of very many sandboxes has few rows in the
// page wherever it is, shows the right ones, and goes on being live.
func TestScrollingACrowd(t *testing.T) {
	p := newPage(t)
	at := crowd(t, 1000)
	p.do(chromedp.Navigate(at))
	p.until(`location.hash === "#/fleet"`)
	p.look(1440, 900, "light")
	p.eval(`location.hash = "#/agents"`, nil)
	p.until(`document.querySelectorAll(".page-agents .rows .row-link").length > 10`)
	var s scrolled
	p.do(chromedp.Evaluate(fmt.Sprintf(frames, 2.0, 120), &s, chromedp.EvalAsValue, awaitPromise))
	if s.Rows > 60 {
		t.Errorf("%d rows in the page at once", s.Rows)
	}
	// At the end of the list there are its last rows, each with what it uses.
	p.eval(`document.querySelector(".table").scrollTop = 1e9`, nil)
	p.until(`document.querySelector("#row-999 .c-cpu b") !== null && document.querySelectorAll(".rows .coming").length === 0`)
	p.until(`document.querySelector("#row-999 .spark-line").getAttribute("d") !== null`)
	// Sorted by another column the list begins at its top, and again when filtered.
	p.do(chromedp.Click(`.th .c-cpu button`, chromedp.ByQuery))
	p.until(`document.querySelector(".th [aria-sort=descending].c-cpu") !== null && document.querySelector("#row-0 .c-cpu b") !== null`)
	p.do(chromedp.SendKeys(`input[type=search]`, "payments", chromedp.ByQuery))
	p.until(`[...document.querySelectorAll(".rows .tr:has(a) .c-team")].length > 10 && [...document.querySelectorAll(".rows .tr:has(a) .c-team")].every((e) => e.textContent === "payments")`)
	var was string
	p.eval(`document.querySelector(".rows").innerText`, &was)
	p.until(fmt.Sprintf(`document.querySelector(".rows").innerText !== %q`, was))
	p.keep("crowd 1440 light")
	p.clean("a crowd")
}

// TestFrames measures: MUSTER_FRAMES=10000 go test -run TestFrames -v. It is no
// part of make test, since what it says is true of a quiet machine only.
func TestFrames(t *testing.T) {
	n, err := strconv.Atoi(os.Getenv("MUSTER_FRAMES"))
	if err != nil {
		t.Skip("MUSTER_FRAMES is not set to a number of sandboxes")
	}
	p := newPage(t)
	at := crowd(t, n)
	p.do(chromedp.Navigate(at))
	p.until(`location.hash === "#/fleet"`)
	p.look(1440, 900, "dark")
	p.eval(`location.hash = "#/agents"`, nil)
	p.until(`document.querySelectorAll(".page-agents .rows .row-link").length > 10`)
	for _, step := range []int{0, 40, 120, 800} {
		var s scrolled
		before := p.busy()
		p.do(chromedp.Evaluate(fmt.Sprintf(frames, 10.0, step), &s, chromedp.EvalAsValue, awaitPromise))
		after := p.busy()
		t.Log(summary(step, s))
		for _, what := range []string{"TaskDuration", "ScriptDuration", "LayoutDuration", "RecalcStyleDuration"} {
			t.Logf("             %s: %.2f ms a frame", what, 1000*(after[what]-before[what])/float64(len(s.Took)))
		}
	}
	p.until(`document.querySelectorAll(".rows .coming").length === 0`)
	p.keep("frames 1440 dark")
}

// busy is what the page's main thread has spent so far, in seconds, by kind.
func (p *page) busy() map[string]float64 {
	p.t.Helper()
	out := map[string]float64{}
	p.do(chromedp.ActionFunc(func(ctx context.Context) error {
		if err := performance.Enable().WithTimeDomain(performance.EnableTimeDomainThreadTicks).Do(ctx); err != nil {
			return err
		}
		list, err := performance.GetMetrics().Do(ctx)
		for _, m := range list {
			out[m.Name] = m.Value
		}
		return err
	}))
	return out
}

func summary(step int, s scrolled) string {
	took := slices.Sorted(slices.Values(s.Took))
	at := func(q float64) float64 { return took[int(q*float64(len(took)-1))] }
	sum, late := 0.0, 0
	for _, ms := range took {
		sum += ms
		if ms > 20 {
			late++
		}
	}
	return fmt.Sprintf("%4d px a frame: %.1f frames/s, p50 %.1f ms, p95 %.1f ms, p99 %.1f ms, worst %.1f ms, %.1f %% later than 20 ms; at most %d rows in the page, %d not there yet",
		step, float64(len(took))/sum*1000, at(0.5), at(0.95), at(0.99), took[len(took)-1], 100*float64(late)/float64(len(took)), s.Rows, s.Missing)
}
