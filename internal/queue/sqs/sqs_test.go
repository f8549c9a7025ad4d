package sqs_test

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"go.uber.org/goleak"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/connect"
	"muster.dev/muster/internal/queue/queuetest"
	"muster.dev/muster/internal/queue/queuetest/servers"
	"muster.dev/muster/internal/queue/sqs"
)

func TestMain(m *testing.M) {
	// What the SDK would take from the machine it runs on.
	for name, v := range map[string]string{"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull} {
		if err := os.Setenv(name, v); err != nil {
			panic(err)
		}
	}
	for _, name := range []string{"AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} {
		if err := os.Unsetenv(name); err != nil {
			panic(err)
		}
	}
	// The tests wait far more than they compute.
	if err := flag.Set("test.parallel", "32"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

func conf(s *servers.SQS, queue string) sqs.Config {
	return sqs.Config{
		Queue: queue, Region: servers.SQSRegion, Endpoint: s.Endpoint(), STSEndpoint: s.Endpoint(), CloudWatchEndpoint: s.Endpoint(),
		AccessKeyID: connect.Fixed(servers.SQSAccessKey), SecretAccessKey: connect.Fixed(servers.SQSSecretKey),
	}
}

// client is a client of a server that checks no signature.
func client(endpoint string) *awssqs.Client {
	return awssqs.New(awssqs.Options{
		Region: servers.SQSRegion, BaseEndpoint: &endpoint, HTTPClient: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}},
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "x", SecretAccessKey: "y"}, nil
		}),
	})
}

func open(t *testing.T, c sqs.Config) *sqs.Source {
	t.Helper()
	q, err := sqs.New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// create makes a queue with a dead-letter queue, and returns both URLs.
func create(t *testing.T, s *servers.SQS, name string, most int) (queue, dead string) {
	t.Helper()
	return createBy(t, s.Client(), name, most)
}

func createBy(t *testing.T, by *awssqs.Client, name string, most int) (queue, dead string) {
	t.Helper()
	attributes := map[string]string{}
	suffix := ""
	if strings.HasSuffix(name, ".fifo") {
		attributes["FifoQueue"], suffix = "true", ".fifo"
	}
	out, err := by.CreateQueue(t.Context(), &awssqs.CreateQueueInput{QueueName: aws.String("dead" + suffix), Attributes: attributes})
	if err != nil {
		t.Fatal(err)
	}
	dead = *out.QueueUrl
	policy := fmt.Sprintf(`{"deadLetterTargetArn":"arn:aws:sqs:%s:%s:dead%s","maxReceiveCount":%d}`, servers.SQSRegion, servers.SQSAccount, suffix, most)
	with := map[string]string{"RedrivePolicy": policy}
	for k, v := range attributes {
		with[k] = v
	}
	if out, err = by.CreateQueue(t.Context(), &awssqs.CreateQueueInput{QueueName: &name, Attributes: with}); err != nil {
		t.Fatal(err)
	}
	return *out.QueueUrl, dead
}

// producer sends as others do; each message of a FIFO queue is a group.
type producer struct {
	by    *awssqs.Client
	queue string
	sent  int
}

func (p *producer) publish(ctx context.Context, sent ...queuetest.Sent) error {
	for _, m := range sent {
		in := &awssqs.SendMessageInput{QueueUrl: &p.queue, MessageBody: aws.String(string(m.Body)), MessageAttributes: map[string]types.MessageAttributeValue{}}
		for k, v := range m.Headers {
			in.MessageAttributes[k] = types.MessageAttributeValue{DataType: aws.String("String"), StringValue: aws.String(v)}
		}
		if strings.HasSuffix(p.queue, ".fifo") {
			p.sent++
			in.MessageGroupId = aws.String("g" + strconv.Itoa(p.sent))
			in.MessageDeduplicationId = in.MessageGroupId
		}
		if _, err := p.by.SendMessage(ctx, in); err != nil {
			return err
		}
	}
	return nil
}

// dead lists what was set aside.
func dead(ctx context.Context, by *awssqs.Client, queue string) (bodies []queuetest.Sent, reasons []string, err error) {
	out, err := by.ReceiveMessage(ctx, &awssqs.ReceiveMessageInput{QueueUrl: &queue, MaxNumberOfMessages: 10, MessageAttributeNames: []string{"All"}})
	if err != nil {
		return nil, nil, err
	}
	for _, m := range out.Messages {
		h := map[string]string{}
		for k, v := range m.MessageAttributes {
			h[k] = aws.ToString(v.StringValue)
		}
		bodies = append(bodies, queuetest.Sent{Body: []byte(*m.Body), Headers: h})
		reasons = append(reasons, h["muster.reason"])
	}
	return bodies, reasons, nil
}

func outside(t *testing.T, name string, change func(*sqs.Config)) queuetest.Outside {
	s := servers.StartSQS(t, nil)
	queue, set := create(t, s, name, 100)
	p := &producer{by: s.Client(), queue: queue}
	return queuetest.Outside{
		Open: func(t *testing.T) fleet.Source {
			c := conf(s, name)
			change(&c)
			return open(t, c)
		},
		Publish:   p.publish,
		Dead:      func(ctx context.Context) ([]queuetest.Sent, []string, error) { return dead(ctx, s.Client(), set) },
		Restart:   func(down time.Duration) { s.Stop(); time.Sleep(down); s.Start() },
		Fill:      func(ctx context.Context, n int) error { return s.Fill(ctx, queue, n) },
		Forbidden: []string{servers.SQSSecretKey},
		Headers:   true,
		Slow:      4, // each call is a signed one, of two cores that others use, too
	}
}

func TestConformance(t *testing.T) {
	for name, mode := range map[string]struct {
		queue  string
		change func(*sqs.Config)
	}{
		"standard":     {"tasks", func(*sqs.Config) {}},
		"fifo":         {"tasks.fifo", func(*sqs.Config) {}},
		"without push": {"tasks", func(c *sqs.Config) { c.NoPush = true }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // each has servers of its own
			queuetest.RunSource(t, func(t *testing.T) queuetest.Outside { return outside(t, mode.queue, mode.change) })
		})
	}
}

func remove(t *testing.T, s *servers.SQS, url string) {
	t.Helper()
	if _, err := s.Client().DeleteQueue(t.Context(), &awssqs.DeleteQueueInput{QueueUrl: &url}); err != nil {
		t.Fatal(err)
	}
}

// TestAgainstMoto runs the suite on a fake that others wrote, one call at a
// time, since it is not safe for several; so without long polls. Tests take
// standard and FIFO queues in turn. It takes a minute.
func TestAgainstMoto(t *testing.T) {
	if os.Getenv("MUSTER_TEST_MOTO") == "" {
		t.Skip("MUSTER_TEST_MOTO is not set")
	}
	to, err := url.Parse(servers.StartMoto(t))
	if err != nil {
		t.Fatal(err)
	}
	forward := httputil.NewSingleHostReverseProxy(to)
	forward.Transport = &http.Transport{DisableKeepAlives: true}
	var one sync.Mutex
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		one.Lock()
		defer one.Unlock()
		forward.ServeHTTP(w, r)
	}))
	t.Cleanup(proxy.Close)
	by := client(proxy.URL)
	n := 0
	queuetest.RunSource(t, func(t *testing.T) queuetest.Outside {
		n++
		name, suffix := fmt.Sprint("tasks", n), []string{"", ".fifo"}[n%2]
		queue, set := createBy(t, by, name+suffix, 100)
		t.Cleanup(func() {
			if _, err := by.DeleteQueue(context.WithoutCancel(t.Context()), &awssqs.DeleteQueueInput{QueueUrl: &set}); err != nil {
				t.Errorf("delete: %v", err)
			}
		})
		p := &producer{by: by, queue: queue}
		return queuetest.Outside{
			Open: func(t *testing.T) fleet.Source {
				return open(t, sqs.Config{Queue: name + suffix, Region: servers.SQSRegion, Endpoint: proxy.URL, AccessKeyID: connect.Fixed("x"), SecretAccessKey: connect.Fixed("y"), NoPush: true})
			},
			Publish: p.publish, Headers: true, Slow: 6,
			Dead: func(ctx context.Context) ([]queuetest.Sent, []string, error) { return dead(ctx, by, set) },
		}
	})
}
