package main

import (
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestReadTrace(t *testing.T) {
	const text = "arrival_unix_seconds,duration_seconds,class\n60,30,ok\n\n 61.5 , 7200.5 \n150,60,failed\r\n"
	path := filepath.Join(t.TempDir(), "t.csv.gz")
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write([]byte(text))
	_ = z.Close()
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	for most, want := range map[time.Duration]int{0: 3, 2 * time.Hour: 2} {
		for _, name := range []string{path, "-"} {
			s, err := readTrace(&shell{in: strings.NewReader(text)}, name, most)
			if err != nil || s.Tasks() != want || s.Known() != 2 {
				t.Errorf("%s: %v, want %d tasks in 2 minutes", name, err, want)
			}
		}
	}
	if err := os.WriteFile(path, b.Bytes()[:b.Len()-12], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readTrace(&shell{}, path, 0); err == nil || !strings.Contains(err.Error(), "t.csv.gz:") {
		t.Errorf("a file that was cut: %v", err)
	}
}
