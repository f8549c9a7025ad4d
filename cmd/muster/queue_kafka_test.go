package main

import (
	"testing"
	"time"

	"muster.dev/muster/api/v1alpha1"
)

func TestKafkaConfig(t *testing.T) {
	o := queueOptions{consumer: "muster-0"}
	c, err := kafkaConfig(&v1alpha1.KafkaQueue{Brokers: []string{"kafka:9092"}, Topic: "tasks"}, o)
	if err != nil || c.Session != 0 || c.Handover != nil || c.Member != "" || c.Password != nil || c.TLS.Enabled {
		t.Errorf("defaults are not the adapter's: %+v", c)
	}
	c, err = kafkaConfig(&v1alpha1.KafkaQueue{
		Brokers: []string{"kafka:9092"}, Topic: "tasks", Group: "g", DeadTopic: "bad", Session: "1m", Handover: "0",
		Static: true, Mechanism: "PLAIN", User: "u", Password: &v1alpha1.Credential{Env: "P"}, TLS: &v1alpha1.QueueTLS{ServerName: "k"},
	}, o)
	if err != nil || c.Session != time.Minute || c.Handover == nil || *c.Handover != 0 || c.Member != "muster-0" || c.Password == nil ||
		c.TLS.ServerName != "k" || c.Group != "g" || c.DeadTopic != "bad" || c.User != "u" || c.Mechanism != "PLAIN" {
		t.Errorf("got %+v", c)
	}
	q, err := openKafka(t.Context(), &v1alpha1.KafkaQueue{Brokers: []string{"127.0.0.1:1"}, Topic: "tasks"}, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := q.Close(); err != nil {
		t.Error(err)
	}
}

func TestKafkaReadOnly(t *testing.T) {
	c, err := kafkaConfig(&v1alpha1.KafkaQueue{Brokers: []string{"kafka:9092"}, Topic: "tasks", Static: true}, queueOptions{consumer: "muster-0", readOnly: true})
	if err != nil || !c.ReadOnly || c.Member != "" {
		t.Errorf("a queue that others work off is not opened to be read only: %+v, %v", c, err)
	}
}
