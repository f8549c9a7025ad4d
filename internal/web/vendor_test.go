package web

import (
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"regexp"
	"strings"
	"testing"
)

// vendored are the digests of libraries of others, from the packages that
// vendor/README.txt names.
var vendored = map[string]string{
	"xterm/LICENSE.txt":  "b569f629d00f2626a8100df2a1798210535621e42164dfd426a6fe5aac7b0ccd",
	"xterm/addon-fit.js": "bdaefa370b1bfc42ee88d46fe6072400902a4d4b2d45cd93438dda9b23c97089",
	"xterm/xterm.css":    "ba8e6985669488981ccf40c0cefe3aba80722cb6c92de7ad628b0bd717faf2b6",
	"xterm/xterm.js":     "1f991ac3b4b283ebf96e60ae23a00a52765dd3a2e46fa6fdda9f1aab032f7495",
}

// TestVendoredIsUnchanged: what is not ours is what its authors published, is
// named with its licence, and makes no code or markup of text.
func TestVendoredIsUnchanged(t *testing.T) {
	left := len(vendored)
	err := fs.WalkDir(assets, "assets/vendor", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || name == "assets/vendor/README.txt" {
			return err
		}
		text, err := assets.ReadFile(name)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(text)
		if want := vendored[strings.TrimPrefix(name, "assets/vendor/")]; want != hex.EncodeToString(sum[:]) {
			t.Errorf("%s has the digest %x, want %s", name, sum, want)
		}
		left--
		for _, m := range regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser`).FindAllString(string(text), -1) {
			t.Errorf("%s uses %s", name, m)
		}
		return nil
	})
	if err != nil || left != 0 {
		t.Errorf("%v; %d of the files are not there", err, left)
	}
}
