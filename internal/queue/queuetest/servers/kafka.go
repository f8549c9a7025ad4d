package servers

import (
	"context"
	"hash/crc32"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Kafka is one broker of kfake, franz-go's own in-process fake of Kafka: the
// protocol is real, the broker is not. Topics, records, offsets and users
// outlive Stop and Start; the members of groups do not, unlike Kafka's.
type Kafka struct {
	t       testing.TB
	opts    []kfake.Opt
	cluster *kfake.Cluster
	// Address is where it listens, host:port.
	Address string
}

// StartKafka starts a broker and ends it with the test. Group sessions may be
// as short as 1 s.
func StartKafka(t testing.TB, more ...kfake.Opt) *Kafka {
	t.Helper()
	k := &Kafka{t: t, opts: append([]kfake.Opt{
		kfake.NumBrokers(1), kfake.DataDir(t.TempDir()), kfake.GroupMinSessionTimeout(time.Second),
	}, more...)}
	k.Start()
	k.Address = k.cluster.ListenAddrs()[0]
	_, port, err := net.SplitHostPort(k.Address)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	k.opts = append(k.opts, kfake.Ports(n))
	t.Cleanup(k.Stop)
	return k
}

// Start starts the broker again after Stop.
func (k *Kafka) Start() {
	k.t.Helper()
	var err error
	for range 50 {
		if k.cluster, err = kfake.NewCluster(k.opts...); err == nil {
			return
		}
		time.Sleep(100 * time.Millisecond) // the port is not free yet
	}
	k.t.Fatalf("start kfake: %v", err)
}

// Stop ends the broker and its connections.
func (k *Kafka) Stop() { k.cluster.Close() }

// Cluster is the broker that runs now, to inject errors with.
func (k *Kafka) Cluster() *kfake.Cluster { return k.cluster }

// Topic makes a topic.
func (k *Kafka) Topic(name string, partitions int32) {
	k.t.Helper()
	if err := k.cluster.CreateTopic(name, partitions, nil); err != nil {
		k.t.Fatalf("create topic %s: %v", name, err)
	}
}

// Client is a client of a producer's or a reader's own; the caller closes it.
func (k *Kafka) Client(opts ...kgo.Opt) *kgo.Client {
	k.t.Helper()
	c, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(k.Address)}, opts...)...)
	if err != nil {
		k.t.Fatal(err)
	}
	return c
}

// Fill writes n records of a few bytes to a topic, spread over its partitions:
// the same batch again and again, since a producer takes longer to make a
// million records than the broker to keep them. opts are the client's.
func (k *Kafka) Fill(ctx context.Context, topic string, n int, opts ...kgo.Opt) error {
	const most = 10_000
	c := k.Client(opts...)
	defer c.Close()
	parts := k.cluster.PartitionInfos(topic)
	for i := 0; n > 0; i++ {
		size := min(n, most)
		n -= size
		p := kmsg.NewProduceRequestTopicPartition()
		p.Partition = int32(i % len(parts)) //nolint:gosec // few partitions
		p.Records = recordBatch(size)
		t := kmsg.NewProduceRequestTopic()
		t.Topic, t.TopicID = topic, k.cluster.TopicInfo(topic).TopicID
		t.Partitions = append(t.Partitions, p)
		req := kmsg.NewPtrProduceRequest()
		req.Acks, req.TimeoutMillis, req.Topics = -1, 5000, []kmsg.ProduceRequestTopic{t}
		resp, err := c.Request(ctx, req)
		if err != nil {
			return err
		}
		for _, t := range resp.(*kmsg.ProduceResponse).Topics { //nolint:forcetypeassert // what was asked for
			for _, p := range t.Partitions {
				if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// recordBatch is n records in the format of Kafka's protocol guide, version 2.
func recordBatch(n int) []byte {
	now := time.Now().UnixMilli()
	b := kmsg.RecordBatch{
		PartitionLeaderEpoch: -1, Magic: 2, LastOffsetDelta: int32(n - 1), FirstTimestamp: now, MaxTimestamp: now, //nolint:gosec // few
		ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1, NumRecords: int32(n), //nolint:gosec // few
	}
	for i := range n {
		r := kmsg.Record{OffsetDelta: int32(i), Value: strconv.AppendInt(nil, int64(i), 10)} //nolint:gosec // few
		r.Length = int32(len(r.AppendTo(nil)) - 1)                                           //nolint:gosec // less the length itself, 0 in one byte
		b.Records = r.AppendTo(b.Records)
	}
	const beforeLength, beforeSum = 12, 21                                                        // bytes that length and checksum leave out
	b.Length = int32(len(b.AppendTo(nil)) - beforeLength)                                         //nolint:gosec // small
	b.CRC = int32(crc32.Checksum(b.AppendTo(nil)[beforeSum:], crc32.MakeTable(crc32.Castagnoli))) //nolint:gosec // the same bits
	return b.AppendTo(nil)
}
