package servers

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
)

// Who the fake lets in, and where it says it is. The keys follow the form of
// the documentation's examples and open nothing.
const (
	SQSRegion    = "eu-central-1"
	SQSAccount   = "123456789012"
	SQSAccessKey = "AKIAIOSFODNN7EXAMPLE"
	SQSSecretKey = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY" //nolint:gosec // a fake's
	SQSRole      = "arn:aws:iam::" + SQSAccount + ":role/queue"
)

// SQS is a fake of Amazon SQS in this process, which speaks its JSON protocol
// over HTTP: it follows the "Amazon SQS API Reference" (as the comments of
// github.com/aws/aws-sdk-go-v2/service/sqs repeat it) and the "Amazon SQS
// Developer Guide"; where these leave open what happens, the rule names where
// its behaviour was seen. It also answers the one call of CloudWatch and the
// one of STS that go with it. It keeps its messages over Stop and Start.
//
// What it does not do: eventual consistency (its counts are exact, its
// receives see every message), policies, encryption, tags, moves of messages,
// digests of attributes.
type SQS struct {
	t       testing.TB
	tls     *tls.Config
	address string

	mu       sync.Mutex
	queues   map[string]*sqsQueue // by URL path
	sessions map[string]session   // given out by AssumeRole, by access key
	calls    map[string]int
	faults   map[string]*fault
	denied   map[string]bool // actions that no key may call
	frozen   chan struct{}   // closed when thawed; nil: not frozen
	age      func() (float64, time.Time, bool)

	server   *http.Server
	handlers sync.WaitGroup
	served   chan struct{}
}

type fault struct {
	code  string
	times int
}

// StartSQS starts the fake on a loopback port, with TLS where config is not
// nil, and ends it with the test.
func StartSQS(t testing.TB, config *tls.Config) *SQS {
	t.Helper()
	s := &SQS{t: t, tls: config, address: "127.0.0.1:0", queues: map[string]*sqsQueue{}, sessions: map[string]session{},
		calls: map[string]int{}, faults: map[string]*fault{}, denied: map[string]bool{}}
	s.Start()
	t.Cleanup(s.Stop)
	return s
}

// Start listens again, on the same address, after Stop.
func (s *SQS) Start() {
	s.t.Helper()
	l, err := net.Listen("tcp", s.address)
	if err != nil {
		s.t.Fatalf("SQS: %v", err)
	}
	s.address = l.Addr().String()
	if s.tls != nil {
		l = tls.NewListener(l, s.tls)
	}
	s.server = &http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0)} // clients that give up are not the test's affair
	s.served = make(chan struct{})
	go func(server *http.Server, served chan struct{}) {
		defer close(served)
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			s.t.Errorf("SQS: %v", err)
		}
	}(s.server, s.served)
}

// Stop breaks every connection and stops listening; messages stay.
func (s *SQS) Stop() {
	if s.server == nil {
		return
	}
	if err := s.server.Close(); err != nil {
		s.t.Errorf("SQS: %v", err)
	}
	<-s.served
	s.handlers.Wait()
	s.server = nil
}

// Freeze leaves every call without an answer until thaw, as a lost network does.
func (s *SQS) Freeze() (thaw func()) {
	frozen := make(chan struct{})
	s.mu.Lock()
	s.frozen = frozen
	s.mu.Unlock()
	return sync.OnceFunc(func() {
		s.mu.Lock()
		s.frozen = nil
		s.mu.Unlock()
		close(frozen)
	})
}

// Endpoint is where all services of the fake are.
func (s *SQS) Endpoint() string {
	if s.tls != nil {
		return "https://" + s.address
	}
	return "http://" + s.address
}

// Fail makes the next calls of an action fail with the error code; entries of
// a batch where the action is one, one entry each.
func (s *SQS) Fail(action, code string, times int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults[action] = &fault{code, times}
}

// Deny makes an action fail for every key from now on, as a missing permission
// does.
func (s *SQS) Deny(action string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.denied[action] = true
}

// Calls counts the calls of an action so far.
func (s *SQS) Calls(action string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[action]
}

// Client is a client of the fake through the real SDK.
func (s *SQS) Client() *sqs.Client {
	return sqs.New(sqs.Options{
		Region: SQSRegion, BaseEndpoint: aws.String(s.Endpoint()), HTTPClient: s.HTTP(),
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: SQSAccessKey, SecretAccessKey: SQSSecretKey}, nil
		}),
	})
}

// HTTP is a client that trusts the fake and keeps no connection open.
func (s *SQS) HTTP() *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}}} //nolint:gosec // a fake on loopback
}

// apiError is an error as SQS answers it.
type apiError struct {
	status        int
	code, message string
}

func (e *apiError) Error() string { return e.code + ": " + e.message }

func refuse(code, format string, args ...any) *apiError {
	return &apiError{http.StatusBadRequest, code, fmt.Sprintf(format, args...)}
}

func invalid(format string, args ...any) *apiError {
	return refuse("InvalidParameterValue", format, args...)
}

// ServeHTTP answers one call.
func (s *SQS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.handlers.Add(1)
	defer s.handlers.Done()
	// Larger than a batch of the largest messages with all escaped.
	body, err := io.ReadAll(io.LimitReader(r.Body, 8<<20))
	if err != nil {
		return
	}
	if !s.thawed(r.Context()) {
		return
	}
	switch {
	case strings.Contains(r.URL.Path, "GraniteServiceVersion20100801"): // the name of CloudWatch in rpc-v2-cbor
		s.cloudWatch(w, r, body)
	case strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-www-form-urlencoded"):
		s.sts(w, r, body)
	default:
		s.json(w, r, body)
	}
}

// thawed waits out a freeze; false when the caller is gone.
func (s *SQS) thawed(ctx context.Context) bool {
	s.mu.Lock()
	frozen := s.frozen
	s.mu.Unlock()
	if frozen == nil {
		return true
	}
	select {
	case <-frozen:
		return true
	case <-ctx.Done():
		return false
	}
}

// json answers a call of SQS: "Making Query API requests using AWS JSON
// protocol" and "Interpreting Amazon SQS JSON API responses" in the Developer
// Guide.
func (s *SQS) json(w http.ResponseWriter, r *http.Request, body []byte) {
	action := strings.TrimPrefix(r.Header.Get("X-Amz-Target"), "AmazonSQS.")
	out, err := s.perform(r, action, body)
	h := w.Header()
	h.Set("Content-Type", "application/x-amz-json-1.0")
	h.Set("X-Amzn-RequestId", uuid())
	if err != nil {
		var e *apiError
		if !errors.As(err, &e) {
			return // the caller is gone
		}
		// queryNames are the names of errors before the JSON protocol; see the
		// "errors" of each action in the API Reference.
		queryNames := map[string]string{"QueueDoesNotExist": "AWS.SimpleQueueService.NonExistentQueue", "MessageNotInflight": "AWS.SimpleQueueService.MessageNotInflight"}
		if name := queryNames[e.code]; name != "" {
			h.Set("X-Amzn-Query-Error", name+";Sender")
		}
		w.WriteHeader(e.status)
		out = map[string]string{"__type": "com.amazonaws.sqs#" + e.code, "message": e.message}
	}
	_ = json.NewEncoder(w).Encode(out) // a caller that is gone is its own affair
}

// perform checks what holds for every action, and does it.
func (s *SQS) perform(r *http.Request, action string, body []byte) (any, error) {
	s.mu.Lock()
	s.calls[action]++
	denied := s.denied[action]
	var injected error
	if !strings.HasSuffix(action, "Batch") {
		injected = s.faulty(action)
	}
	s.mu.Unlock()
	if err := s.signed(r, body, "sqs"); err != nil {
		return nil, err
	}
	if denied {
		return nil, &apiError{http.StatusForbidden, "AccessDeniedException", "User: arn:aws:iam::" + SQSAccount + ":user/test is not authorized to perform: sqs:" + strings.ToLower(action)}
	}
	do, ok := sqsActions[action]
	if !ok {
		return nil, refuse("InvalidAction", "The action or operation requested is invalid. Verify that the action is typed correctly.")
	}
	if injected != nil {
		return nil, injected
	}
	return do(s, r.Context(), body)
}

// faulty takes one injected failure of the action, if there is one; the lock
// must be held.
func (s *SQS) faulty(action string) error {
	f := s.faults[action]
	if f == nil || f.times <= 0 {
		return nil
	}
	f.times--
	e := &apiError{http.StatusBadRequest, f.code, "injected"}
	switch f.code {
	case "InternalError", "ServiceUnavailable":
		e.status = http.StatusServiceUnavailable
	}
	return e
}

func uuid() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails; see crypto/rand
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
