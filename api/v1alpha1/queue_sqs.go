package v1alpha1

import (
	"net/url"
	"regexp"
	"strings"
)

// SQSQueue is a standard or FIFO queue of Amazon SQS; see docs/queues/sqs.md.
type SQSQueue struct {
	Queue   string `json:"queue" doc:"Name of the queue, or its URL; that of a FIFO queue ends in .fifo"`
	Account string `json:"account,omitempty" doc:"Account that the queue belongs to, 12 digits, where it is another's; only with a name"`
	Region  string `json:"region,omitempty" doc:"Default: that in the URL of the queue, else that of the environment"`
	// DeadLetterQueue takes what can never be run. Default: the one in the redrive
	// policy of the queue.
	DeadLetterQueue string `json:"deadLetterQueue,omitempty" doc:"Name or URL; default: the one in the redrive policy of the queue"`

	AccessKeyID     *Credential `json:"accessKeyId,omitempty" doc:"Default: the environment, web identity, container or instance role"`
	SecretAccessKey *Credential `json:"secretAccessKey,omitempty" doc:"With accessKeyId"`
	SessionToken    *Credential `json:"sessionToken,omitempty" doc:"With temporary keys"`
	AssumeRole      string      `json:"assumeRole,omitempty" doc:"ARN of a role that is taken on with these credentials"`
	ExternalID      string      `json:"externalId,omitempty" doc:"Where the role asks for one"`

	Endpoint           string    `json:"endpoint,omitempty" doc:"URL of the service, without path; default: that of the region"`
	STSEndpoint        string    `json:"stsEndpoint,omitempty" doc:"The same of STS, for assumeRole"`
	CloudWatchEndpoint string    `json:"cloudWatchEndpoint,omitempty" doc:"The same of CloudWatch"`
	TLS                *QueueTLS `json:"tls,omitempty" doc:"For endpoints of your own; those of AWS need none of it"`

	// CloudWatch reads the age of the oldest message from CloudWatch, once a
	// minute; it is one to three minutes old.
	CloudWatch bool `json:"cloudWatch,omitempty"`
	// LongPoll learns of arrivals at once, by a request that takes a message as
	// soon as there is one; each such counts as a delivery. Default true.
	LongPoll *bool `json:"longPoll,omitempty"`
}

var (
	sqsName    = regexp.MustCompile(`^[A-Za-z0-9_-]{1,75}(\.fifo)?$|^[A-Za-z0-9_-]{76,80}$`)
	sqsAccount = regexp.MustCompile(`^[0-9]{12}$`)
	sqsRegion  = regexp.MustCompile(`^[a-z]{2,}(-[a-z]+)+-[0-9]{1,2}$`)
	sqsRole    = regexp.MustCompile(`^arn:aws[a-z-]*:iam::[0-9]{12}:role/[\x21-\x7e]{1,512}$`)
)

func (q *SQSQueue) validate(ps *problems, field string) {
	ps.required(sub(field, "queue"), q.Queue, "the name of a queue, or its URL")
	ps.sqsQueue(sub(field, "queue"), q.Queue)
	ps.sqsQueue(sub(field, "deadLetterQueue"), q.DeadLetterQueue)
	if q.DeadLetterQueue != "" && q.DeadLetterQueue == q.Queue {
		ps.addf(sub(field, "deadLetterQueue"), "another queue", "is the queue itself")
	}
	if q.DeadLetterQueue != "" && strings.HasSuffix(q.DeadLetterQueue, ".fifo") != strings.HasSuffix(q.Queue, ".fifo") {
		ps.addf(sub(field, "deadLetterQueue"), "a FIFO queue for a FIFO queue, a standard one for a standard one", "is of another kind than the queue")
	}
	switch {
	case q.Account == "":
	case strings.Contains(q.Queue, "://"):
		ps.addf(sub(field, "account"), "the name of the queue, or no account", "has no meaning with a URL")
	case !sqsAccount.MatchString(q.Account):
		ps.addf(sub(field, "account"), `12 digits in quotes, such as "123456789012"`, "%q is none", clip(q.Account))
	}
	if q.Region != "" && !sqsRegion.MatchString(q.Region) {
		ps.addf(sub(field, "region"), "a region such as eu-central-1", "%q is none", clip(q.Region))
	}
	q.validateKeys(ps, field)
	for _, e := range []struct{ name, address string }{{"endpoint", q.Endpoint}, {"stsEndpoint", q.STSEndpoint}, {"cloudWatchEndpoint", q.CloudWatchEndpoint}} {
		u, err := url.Parse(e.address)
		// Not shown: it may have a password in it.
		if e.address != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "") {
			ps.addf(sub(field, e.name), "a URL such as https://sqs.internal:9324, without path, user or query", "is no address of a service")
		}
	}
	ps.tls(sub(field, "tls"), q.TLS)
	if q.TLS != nil && strings.HasPrefix(q.Endpoint, "http://") {
		ps.addf(sub(field, "tls"), "an endpoint that begins with https://", "has no meaning with an endpoint without TLS")
	}
}

func (q *SQSQueue) validateKeys(ps *problems, field string) {
	ps.credential(sub(field, "accessKeyId"), q.AccessKeyID)
	ps.credential(sub(field, "secretAccessKey"), q.SecretAccessKey)
	ps.credential(sub(field, "sessionToken"), q.SessionToken)
	switch {
	case q.AccessKeyID != nil && q.SecretAccessKey == nil:
		ps.addf(sub(field, "secretAccessKey"), "both, or neither", "is missing beside accessKeyId")
	case q.AccessKeyID == nil && q.SecretAccessKey != nil:
		ps.addf(sub(field, "accessKeyId"), "both, or neither", "is missing beside secretAccessKey")
	case q.AccessKeyID == nil && q.SessionToken != nil:
		ps.addf(sub(field, "sessionToken"), "accessKeyId and secretAccessKey, too", "has no meaning alone")
	}
	if q.AssumeRole != "" && !sqsRole.MatchString(q.AssumeRole) {
		ps.addf(sub(field, "assumeRole"), "the ARN of a role, such as arn:aws:iam::123456789012:role/muster", "%q is none", clip(q.AssumeRole))
	}
	if q.ExternalID != "" {
		ps.printable(sub(field, "externalId"), q.ExternalID, 1224)
		if q.AssumeRole == "" {
			ps.addf(sub(field, "externalId"), "a role in assumeRole", "has no meaning without one")
		}
	}
}

// sqsQueue checks the name or the URL of a queue; an empty one is the caller's.
// A URL is not shown: it may have a password in it.
func (ps *problems) sqsQueue(field, s string) {
	const right = "up to 80 letters, digits, - and _ (and .fifo), or a URL that ends in such a name"
	switch u, err := url.Parse(s); {
	case s == "":
	case !strings.Contains(s, "://"):
		if !sqsName.MatchString(s) {
			ps.addf(field, right, "%q is no name of a queue", clip(s))
		}
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || !sqsName.MatchString(u.Path[strings.LastIndex(u.Path, "/")+1:]):
		ps.addf(field, right, "is no URL of a queue")
	}
}
