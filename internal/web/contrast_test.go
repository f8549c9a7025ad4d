package web

import (
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestContrast: every colour of text has WCAG AA contrast on what it lies on,
// in both themes.
func TestContrast(t *testing.T) {
	css, err := assets.ReadFile("assets/style.css")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile(`(?s):root[^{]*\{([^}]*--bg:[^}]*)\}`).FindAllStringSubmatch(string(css), -1)
	if len(blocks) != 3 {
		t.Fatalf("%d themes, want light, dark by the system, dark by choice", len(blocks))
	}
	if strings.Join(strings.Fields(blocks[1][1]), " ") != strings.Join(strings.Fields(blocks[2][1]), " ") {
		t.Error("the two dark themes differ")
	}
	for i, b := range blocks {
		colours := map[string]string{}
		for _, m := range regexp.MustCompile(`--([a-z0-9-]+): (#[0-9a-f]{6});`).FindAllStringSubmatch(b[1], -1) {
			colours[m[1]] = m[2]
		}
		check := func(text, on string) {
			t.Helper()
			a, b := luminance(t, colours[text]), luminance(t, colours[on])
			if ratio := (max(a, b) + 0.05) / (min(a, b) + 0.05); ratio < 4.5 {
				t.Errorf("theme %d: %s on %s has a contrast of %.2f, want 4.5", i, text, on, ratio)
			}
		}
		for name := range colours {
			if strings.HasSuffix(name, "-text") || name == "text" || name == "text-2" || name == "accent" {
				for _, on := range []string{"bg", "raised", "sunk", "hover"} {
					check(name, on)
				}
			}
		}
		check("on-accent", "accent-fill")
		check("bad-text", "bad-soft")
		check("text", "accent-soft")
		check("text-2", "accent-soft")
	}
}

func luminance(t *testing.T, colour string) float64 {
	t.Helper()
	var sum float64
	for i, weight := range []float64{0.2126, 0.7152, 0.0722} {
		if len(colour) != 7 {
			t.Fatalf("%q is no colour", colour)
		}
		v, err := strconv.ParseUint(colour[1+2*i:3+2*i], 16, 8)
		if err != nil {
			t.Fatal(err)
		}
		c := float64(v) / 255
		if c <= 0.04045 {
			c /= 12.92
		} else {
			c = math.Pow((c+0.055)/1.055, 2.4)
		}
		sum += weight * c
	}
	return sum
}
