package connect

import (
	"context"
	"strings"
	"sync"
	"time"
)

// Kept remembers a credential for half a minute: requests are frequent, and a
// Kubernetes secret is a request of its own. Safe for concurrent use.
type Kept struct {
	From  Credential
	mu    sync.Mutex
	text  string
	until time.Time
}

const keepFor = 30 * time.Second

// Value returns the credential, empty for none.
func (k *Kept) Value(ctx context.Context) (string, error) {
	if v, ok := k.fresh(); ok {
		return v, nil
	}
	v, err := k.From.Value(ctx)
	if err != nil {
		return "", err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.text, k.until = v, time.Now().Add(keepFor)
	return v, nil
}

func (k *Kept) fresh() (string, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.text, time.Now().Before(k.until)
}

// Forget has the credential read again with the next Value: it was refused.
func (k *Kept) Forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.until = time.Time{}
}

// Redact takes the credential out of text that a service sent, and bounds it to
// 200 characters on one line.
func (k *Kept) Redact(text string) string {
	k.mu.Lock()
	secret := k.text
	k.mu.Unlock()
	if secret != "" {
		text = strings.ReplaceAll(text, secret, "***")
	}
	text = strings.Join(strings.Fields(strings.ToValidUTF8(text, "?")), " ")
	if r := []rune(text); len(r) > 200 {
		text = string(r[:200]) + "…"
	}
	return text
}
