package servers

import (
	"fmt"
	"net/http"
	"os/exec"
	"testing"
	"time"
)

// StartMoto starts moto, the Python project's fake of AWS, and returns its
// endpoint. Nothing of ours went into it, so that it tells where our own fake
// only agrees with us. It is not what Debian has: the test is skipped without
// it. It keeps nothing across a restart, and checks no signature.
func StartMoto(t testing.TB) (endpoint string) {
	t.Helper()
	program, err := exec.LookPath("moto_server")
	if err != nil {
		t.Skip("moto_server is not installed (the Python package moto[server])")
	}
	port := Port(t)
	endpoint = "http://" + Address(port)
	Start(t, Setup{Program: program, Args: []string{"-H", "127.0.0.1", "-p", fmt.Sprint(port)}, Ready: func() error {
		client := http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
		resp, err := client.Get(endpoint + "/moto-api/") //nolint:noctx // bounded by the client
		if err != nil {
			return err
		}
		return resp.Body.Close()
	}})
	return endpoint
}
