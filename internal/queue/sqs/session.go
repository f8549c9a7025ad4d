package sqs

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/connect"
)

// session makes what the clients of the services have in common. It does not
// connect: the SDK asks for credentials at the first call.
func session(ctx context.Context, c Config) (aws.Config, *http.Transport, error) {
	if _, err := c.TLS.Config(); err != nil {
		return aws.Config{}, nil, err
	}
	with := []func(*config.LoadOptions) error{
		config.WithRetryer(func() aws.Retryer {
			// One attempt more, soon: a connection that the server had closed, a
			// throttled call. More would take longer than a call may.
			return retry.NewStandard(func(o *retry.StandardOptions) {
				o.MaxAttempts, o.MaxBackoff, o.RateLimiter = 2, 200*time.Millisecond, ratelimit.None
			})
		}),
	}
	if c.Region != "" {
		with = append(with, config.WithRegion(c.Region))
	}
	if c.AccessKeyID != nil {
		with = append(with, config.WithCredentialsProvider(aws.NewCredentialsCache(fixed{c.AccessKeyID, c.SecretAccessKey, c.SessionToken})))
	}
	cfg, err := config.LoadDefaultConfig(ctx, with...)
	if err != nil {
		return aws.Config{}, nil, fmt.Errorf("AWS configuration: %w: %w", fleet.ErrInvalid, err)
	}
	if cfg.Region == "" {
		return aws.Config{}, nil, &fleet.FieldError{Field: "region", Wrong: "is missing", Right: "a region such as eu-central-1, here or in AWS_REGION"}
	}
	transport := tune(cfg.HTTPClient, c.TLS)
	cfg.HTTPClient = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	if c.AssumeRole != "" {
		client := sts.NewFromConfig(cfg, func(o *sts.Options) { o.BaseEndpoint, o.HTTPSignerV4 = optional(c.STSEndpoint), &signer{} })
		cfg.Credentials = aws.NewCredentialsCache(stscreds.NewAssumeRoleProvider(client, c.AssumeRole, func(o *stscreds.AssumeRoleOptions) {
			o.RoleSessionName, o.ExternalID = "muster", optional(c.ExternalID)
		}), func(o *aws.CredentialsCacheOptions) { o.ExpiryWindow = 5 * time.Minute })
	}
	return cfg, transport, nil
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// tune makes the transport of our calls of the one that the SDK made, which
// knows the environment's proxy and authorities (AWS_CA_BUNDLE). Certificates
// of our own are read at each connection, so that renewed ones are taken up.
func tune(from aws.HTTPClient, t connect.TLS) *http.Transport {
	made, ok := from.(*awshttp.BuildableClient)
	if !ok {
		made = awshttp.NewBuildableClient()
	}
	dialer := &net.Dialer{Timeout: 3 * time.Second, KeepAlive: 30 * time.Second}
	transport := made.GetTransport()
	transport.DialContext, transport.TLSHandshakeTimeout = dialer.DialContext, 3*time.Second
	transport.MaxIdleConnsPerHost, transport.IdleConnTimeout = 4*maxLanes, 50*time.Second
	if conf, err := t.Config(); err == nil && conf != nil {
		transport.TLSClientConfig = conf // through a proxy
		transport.DialTLSContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			now, err := t.Config()
			if err != nil {
				return nil, err
			}
			return (&tls.Dialer{NetDialer: dialer, Config: now}).DialContext(ctx, network, address)
		}
	}
	return transport
}

// signer signs calls. The SDK's own keeps what it derived of a secret for a day,
// by the ID of the key alone, and would go on with a wrong secret after that
// was mended.
type signer struct {
	mu     sync.Mutex
	secret string
	inner  *v4.Signer
}

// SignHTTP implements the HTTPSignerV4 of the services.
func (s *signer) SignHTTP(ctx context.Context, c aws.Credentials, r *http.Request, hash, service, region string, at time.Time, with ...func(*v4.SignerOptions)) error { //nolint:revive // the SDK's interface
	s.mu.Lock()
	if s.inner == nil || s.secret != c.SecretAccessKey {
		s.inner, s.secret = v4.NewSigner(), c.SecretAccessKey
	}
	inner := s.inner
	s.mu.Unlock()
	return inner.SignHTTP(ctx, c, r, hash, service, region, at, with...)
}

// fixed are credentials that somebody else keeps.
type fixed struct{ id, secret, token connect.Credential }

// Retrieve implements aws.CredentialsProvider.
func (f fixed) Retrieve(ctx context.Context) (aws.Credentials, error) {
	out := aws.Credentials{Source: "muster", CanExpire: true, Expires: time.Now().Add(time.Minute)}
	for _, part := range []struct {
		name string
		from connect.Credential
		to   *string
	}{{"accessKeyId", f.id, &out.AccessKeyID}, {"secretAccessKey", f.secret, &out.SecretAccessKey}, {"sessionToken", f.token, &out.SessionToken}} {
		v, err := part.from.Value(ctx)
		if err != nil {
			return aws.Credentials{}, fmt.Errorf("%s: %w", part.name, err)
		}
		*part.to = v
	}
	if !out.HasKeys() {
		return aws.Credentials{}, fmt.Errorf("accessKeyId or secretAccessKey is empty: %w", fleet.ErrDenied)
	}
	return out, nil
}
