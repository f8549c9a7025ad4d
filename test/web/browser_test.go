package web

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// page is a tab of a real browser.
type page struct {
	t   *testing.T
	ctx context.Context

	mu       sync.Mutex
	problems []string // console errors, exceptions, refused loads
}

func newPage(t *testing.T) *page {
	t.Helper()
	program, err := browserPath()
	if err != nil {
		t.Skip(err)
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(program), chromedp.NoSandbox, chromedp.Flag("headless", "new"))
	alloc, stop := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(stop)
	ctx, done := chromedp.NewContext(alloc)
	t.Cleanup(done)
	p := &page{t: t, ctx: ctx}
	chromedp.ListenTarget(ctx, p.hear)
	p.do(log.Enable(), network.Enable())
	return p
}

func (p *page) hear(event any) {
	var text string
	switch e := event.(type) {
	case *runtime.EventConsoleAPICalled:
		if e.Type != runtime.APITypeError && e.Type != runtime.APITypeWarning {
			return
		}
		for _, a := range e.Args {
			text += string(a.Value) + " " + a.Description
		}
	case *runtime.EventExceptionThrown:
		text = e.ExceptionDetails.Error()
	case *log.EventEntryAdded:
		if e.Entry.Level != log.LevelError {
			return
		}
		text = e.Entry.Text + " " + e.Entry.URL
	default:
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.problems = append(p.problems, text)
}

// clean expects no console error since the last time.
func (p *page) clean(where string) {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.problems {
		p.t.Errorf("%s: the browser says: %s", where, s)
	}
	p.problems = nil
}

// forget drops errors that were to be expected.
func (p *page) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.problems = nil
}

func (p *page) do(actions ...chromedp.Action) {
	p.t.Helper()
	if err := p.try(actions...); err != nil {
		var text string
		_ = p.try(chromedp.Evaluate(`document.body.innerText.slice(0, 2000)`, &text))
		p.t.Fatalf("%v; the page says:\n%s", err, text)
	}
}

func (p *page) try(actions ...chromedp.Action) error {
	if chromedp.FromContext(p.ctx).Browser == nil { // the first call starts the browser, which lives as long as its context
		if err := chromedp.Run(p.ctx); err != nil {
			return err
		}
	}
	ctx, done := context.WithTimeout(p.ctx, time.Minute)
	defer done()
	return chromedp.Run(ctx, actions...)
}

// look is a size and a colour scheme.
func (p *page) look(width, height int64, scheme string) {
	p.t.Helper()
	p.do(chromedp.EmulateViewport(width, height),
		emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}))
}

// until waits for a JavaScript expression to hold. One that throws does not: the
// page may be about to draw what it looks for.
func (p *page) until(expression string) {
	p.t.Helper()
	p.do(chromedp.Poll("(() => { try { return ("+expression+"); } catch { return false; } })()", nil, chromedp.WithPollingInterval(50*time.Millisecond), chromedp.WithPollingTimeout(50*time.Second)))
}

func (p *page) eval(expression string, to any) {
	p.t.Helper()
	p.do(chromedp.Evaluate(expression, to))
}

// says waits for a text.
func (p *page) says(text string) {
	p.t.Helper()
	p.until(fmt.Sprintf("document.body.innerText.includes(%q)", text))
}

func (p *page) signIn(m *machine) {
	p.t.Helper()
	p.do(chromedp.Navigate(m.base + "/"))
	p.until(`document.querySelector("#token") !== null`)
	p.do(chromedp.SendKeys("#token", m.token+"\r", chromedp.ByQuery))
	p.until(`document.querySelector(".frame") !== null`)
}

// keep writes a screenshot where MUSTER_SCREENSHOTS says, for people.
func (p *page) keep(name string) {
	p.t.Helper()
	var png []byte
	p.do(chromedp.CaptureScreenshot(&png))
	if len(png) < 5000 {
		p.t.Errorf("%s: a screenshot of %d bytes", name, len(png))
	}
	if dir := os.Getenv("MUSTER_SCREENSHOTS"); dir != "" {
		if err := os.WriteFile(filepath.Join(dir, strings.ReplaceAll(name, " ", "-")+".png"), png, 0o600); err != nil {
			p.t.Error(err)
		}
	}
}

// awaitPromise makes Evaluate wait for what a promise gives.
func awaitPromise(e *runtime.EvaluateParams) *runtime.EvaluateParams { return e.WithAwaitPromise(true) }
