package servers

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// PrometheusServer is a Prometheus that scrapes one target.
type PrometheusServer struct {
	*Process
	Address string // host:port
}

// Prometheus starts a Prometheus on a directory of its own, which scrapes the
// target, host:port, five times a second. Web is the content of its web
// configuration (basic_auth_users, tls_server_config), with the secret that it
// asks of the user muster; empty for none.
func Prometheus(t testing.TB, target, web, secret string) *PrometheusServer {
	t.Helper()
	conf := fmt.Sprintf("global: {scrape_interval: 200ms, scrape_timeout: 200ms}\nscrape_configs: [{job_name: queue, static_configs: [{targets: [%q]}]}]\n", target)
	return PrometheusOf(t, conf, web, secret)
}

// PrometheusOf is Prometheus with a configuration of one's own.
func PrometheusOf(t testing.TB, conf, web, secret string) *PrometheusServer {
	t.Helper()
	program := Program(t, "prometheus")
	dir := t.TempDir()
	s := &PrometheusServer{Address: Address(Port(t))}
	for name, text := range map[string]string{"prometheus.yml": conf, "web.yml": web} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.Process = Start(t, Setup{Program: program, Args: []string{
		"--config.file=" + filepath.Join(dir, "prometheus.yml"), "--web.config.file=" + filepath.Join(dir, "web.yml"),
		"--storage.tsdb.path=" + filepath.Join(dir, "data"), "--web.listen-address=" + s.Address, "--log.level=warn",
	}, Ready: func() error { return s.ready(secret) }})
	return s
}

func (s *PrometheusServer) ready(secret string) error {
	client := http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := http.NewRequest(http.MethodGet, "http://"+s.Address+"/-/ready", nil)
	if err != nil {
		return err
	}
	if secret != "" {
		r.SetBasicAuth("muster", secret)
	}
	resp, err := client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("HTTP %d", resp.StatusCode)
	}
	return nil
}
