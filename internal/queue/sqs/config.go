package sqs

import (
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/connect"
)

// Config says which queue, and how to reach it.
type Config struct {
	// Queue is the name of a queue (1 to 80 characters; that of a FIFO queue ends
	// in .fifo) or its URL. It must exist; it is not created.
	Queue string
	// Account is the account of 12 digits that the queue belongs to; empty: the
	// credentials' own. Only with a name.
	Account string
	// Region, as eu-central-1. Empty: that in the URL of the queue, else that of
	// the environment (AWS_REGION, the shared configuration).
	Region string
	// DeadLetter is the name or URL of the queue that messages are set aside in;
	// empty: the one in the RedrivePolicy of the queue.
	DeadLetter string

	// AccessKeyID, SecretAccessKey and SessionToken are fixed credentials, the
	// first two together, read anew every minute. Without them the SDK's default
	// chain is asked: environment, shared configuration, web identity, container,
	// instance.
	AccessKeyID, SecretAccessKey, SessionToken connect.Credential
	// AssumeRole is the ARN of a role to take on with these credentials, with
	// ExternalID where the role asks for one. Empty: none.
	AssumeRole, ExternalID string

	// Endpoint, STSEndpoint and CloudWatchEndpoint are http or https URLs without
	// path or user; empty: those of the region.
	Endpoint, STSEndpoint, CloudWatchEndpoint string
	// TLS is for endpoints of one's own; those of AWS need none of it.
	TLS connect.TLS

	// CloudWatch reads the age of the oldest message from CloudWatch, once a
	// minute.
	CloudWatch bool
	// NoPush switches the long poll off that learns of arrivals. It takes one
	// message for at most 5 s, which counts as a delivery.
	NoPush bool
}

var (
	queueName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,75}(\.fifo)?$|^[A-Za-z0-9_-]{76,80}$`)
	accountID = regexp.MustCompile(`^[0-9]{12}$`)
	roleARN   = regexp.MustCompile(`^arn:aws[a-z-]*:iam::[0-9]{12}:role/[\x21-\x7e]{1,512}$`)
	awsRegion = regexp.MustCompile(`^[a-z]{2,}(-[a-z]+)+-[0-9]{1,2}$`)
)

// check finds what can never work, and fills in the region.
func (c *Config) check() error {
	wrong := func(field, what, right string) error {
		return &fleet.FieldError{Field: field, Wrong: what, Right: right}
	}
	for field, queue := range map[string]string{"queue": c.Queue, "deadLetterQueue": c.DeadLetter} {
		if _, err := parseQueue(queue); err != nil && (field == "queue" || queue != "") {
			return wrong(field, err.Error(), "the name of a queue, or its URL")
		}
	}
	at, _ := parseQueue(c.Queue)
	if c.Region == "" {
		c.Region = at.region
	}
	switch {
	case c.Account != "" && (!accountID.MatchString(c.Account) || at.url != ""):
		return wrong("account", "cannot be "+c.Account, "12 digits, where queue is a name")
	case c.Region != "" && !awsRegion.MatchString(c.Region):
		return wrong("region", "cannot be "+c.Region, "a region such as eu-central-1")
	case (c.AccessKeyID == nil) != (c.SecretAccessKey == nil):
		return wrong("secretAccessKey", "does not come with accessKeyId", "both, or neither")
	case c.SessionToken != nil && c.AccessKeyID == nil:
		return wrong("sessionToken", "has no accessKeyId with it", "all three, or none")
	case c.AssumeRole != "" && !roleARN.MatchString(c.AssumeRole):
		return wrong("assumeRole", "is no ARN of a role", "arn:aws:iam::123456789012:role/name")
	case c.ExternalID != "" && c.AssumeRole == "":
		return wrong("externalId", "has no meaning without assumeRole", "a role")
	}
	for field, e := range map[string]string{"endpoint": c.Endpoint, "stsEndpoint": c.STSEndpoint, "cloudWatchEndpoint": c.CloudWatchEndpoint} {
		if e != "" && !bare(e) {
			return wrong(field, "is no address of a service", "a URL such as https://sqs.internal:9324, without path or user")
		}
	}
	return nil
}

// bare says whether an address is a scheme and a host.
func bare(address string) bool {
	u, err := url.Parse(address)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.User == nil && strings.Trim(u.Path, "/") == "" && u.RawQuery == "" && u.Fragment == ""
}

// where is a queue as the user named it: by URL, or by name and account.
type where struct{ url, name, account, region string }

func (w where) fifo() bool { return strings.HasSuffix(w.name, ".fifo") }

// regional finds the region in the host of a queue's URL; see "Amazon Simple
// Queue Service endpoints and quotas" in the AWS General Reference.
var regional = regexp.MustCompile(`^(?:sqs(?:-fips)?|vpce-[a-z0-9-]+\.sqs)\.([a-z0-9-]+)\.(?:vpce\.)?(?:amazonaws\.com(?:\.cn)?|api\.aws)$`)

// parseQueue reads the name or the URL of a queue.
func parseQueue(s string) (where, error) {
	if s == "" {
		return where{}, fmt.Errorf("is missing")
	}
	if !strings.Contains(s, "://") {
		if !queueName.MatchString(s) {
			return where{}, fmt.Errorf("%.100q cannot be the name of a queue", s)
		}
		return where{name: s}, nil
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || len(s) > 1024 {
		return where{}, fmt.Errorf("is no URL of a queue")
	}
	parts := strings.Split(strings.Trim(u.Path, "/"), "/")
	name := parts[len(parts)-1]
	if !queueName.MatchString(name) {
		return where{}, fmt.Errorf("is a URL that names no queue")
	}
	w := where{url: s, name: name}
	if m := regional.FindStringSubmatch(u.Hostname()); m != nil && awsRegion.MatchString(m[1]) {
		w.region = m[1]
	}
	return w, nil
}

// parseRedrive finds the dead-letter queue in a RedrivePolicy; its
// deadLetterTargetArn is arn:aws:sqs:region:account:name (SetQueueAttributes in
// the API Reference). An empty policy is no queue.
func parseRedrive(policy string) (where, error) {
	if policy == "" {
		return where{}, nil
	}
	var p struct {
		Target string `json:"deadLetterTargetArn"`
	}
	if err := json.Unmarshal([]byte(policy), &p); err != nil {
		return where{}, fmt.Errorf("the RedrivePolicy of the queue cannot be read: %w", fleet.ErrUnavailable)
	}
	parts := strings.Split(p.Target, ":")
	if len(parts) != 6 || parts[2] != "sqs" || !accountID.MatchString(parts[4]) || !queueName.MatchString(parts[5]) {
		return where{}, fmt.Errorf("the RedrivePolicy of the queue names no queue: %w", fleet.ErrUnavailable)
	}
	return where{name: parts[5], account: parts[4], region: parts[3]}, nil
}
