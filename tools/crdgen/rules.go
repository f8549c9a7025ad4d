package main

// rule is a rule over several fields, in CEL.
type rule struct{ expression, message string }

func validations(rules []rule) []object {
	var out []object
	for _, r := range rules {
		out = append(out, object{"rule": r.expression, "message": r.message})
	}
	return out
}

// rules are those of each type. They repeat what api/v1alpha1 checks, as far as
// an API server can, so that a mistake is told when it is made; what only the
// control plane can tell becomes a condition. Messages are those of the control
// plane, as far as one text can be for all values.
func rules() map[string][]rule {
	const ownPlane = "is the control plane's own, which a fleet in a cluster cannot read"
	out := map[string][]rule{
		"FleetSpec": {
			{`self.mode != 'run' || !(self.queue.type in ['prometheus', 'http', 'temporal'])`, "queue.type: can only be read; want mode: scale or shadow, or a queue that tasks can be taken from"},
			{`self.mode == 'run' || self.queue.type != 'embedded'`, "queue.type: is embedded, whose tasks only Muster can run; want an outside queue, which others work off, or mode: run"},
			{`self.mode != 'run' || !has(self.workers)`, "workers: has no meaning with mode: run; want mode: scale or shadow, or no such field"},
			{`self.mode != 'run' || !has(self.nodes) || !has(self.nodes.provider) || self.nodes.provider == 'kubernetes'`, "nodes.provider: want kubernetes, or nothing; external only with mode: scale or shadow"},
			{`self.mode == 'run' || !has(self.nodes) || !has(self.nodes.provider) || self.nodes.provider == 'external'`, "nodes.provider: want external, or nothing: with mode: scale and shadow nothing runs here"},
			{`self.mode == 'run' || !has(self.nodes) || !has(self.nodes.kubernetes) && !has(self.nodes.min)`, "nodes: kubernetes and min have no meaning with mode: scale and shadow"},
			{`self.mode != 'run' || self.templates.all(t, has(t.image) && t.image != 'host' && !t.image.startsWith('/'))`, "templates: each wants an image, a reference such as debian:12: the nodes of a cluster have only images of a registry"},
			{`self.mode != 'run' || self.templates.all(t, !has(t.mounts) || size(t.mounts) == 0)`, "templates: mounts show paths of the host, which agents in a cluster never see; want an image that holds the files"},
			{`self.mode == 'scale' || !has(self.targets) || size(self.targets) == 0`, "targets: are written to in mode: scale only; want mode: scale, or no targets"},
			{`self.mode == 'run' || !has(self.consumers)`, "consumers: has no meaning with mode: scale and shadow, where others run the workers; want mode: run, or no consumers"},
			{`!has(self.consumers) || self.queue.type == 'embedded'`, "queue.type: want embedded, or no consumers: one process holds the messages of an outside queue"},
			{`!has(self.consumers) || !has(self.nodes) || !has(self.nodes.kubernetes) || self.nodes.kubernetes.warm != 'agent-sandbox'`, "nodes.kubernetes.warm: is agent-sandbox, whose pools one process sizes, and there are consumers; want pods, or no consumers"},
			{`!has(self.webhooks) || !has(self.webhooks.secret) || has(self.secrets) && has(self.secrets.kubernetes)`, "webhooks.secret: names a secret, and there are none; want secrets.kubernetes as well"},
		},
		"Template": {
			{`!(self.runtime in ['runc', 'crun'])`, "runtime: want auto, kubernetes, gvisor or kata; runc and crun are for one machine"},
		},
		"Network": {
			{`!has(self.mode) || self.mode == 'proxy' || !has(self.allow) && !has(self.allowPrivate)`, "allow: has no meaning with this mode; want mode: proxy, or no list"},
		},
		"Range":    {{`!has(self.min) || !has(self.max) || self.min <= self.max`, "min: is more than max; want at most max"}},
		"Capacity": {{`!has(self.floors) || self.floors.all(f, f.min <= self.sandboxes.max)`, "floors: min is more than sandboxes.max; want at most that, or a larger max"}},
		"Nodes": {
			{`!has(self.min) || !has(self.max) || self.min <= self.max`, "min: is more than max; want at most max"},
			{`!has(self.reserveCPUs) && !has(self.reserveMemory) && !has(self.overcommitCPU) && !has(self.overcommitMemory)`, "reserveCPUs, reserveMemory, overcommitCPU and overcommitMemory have no meaning in a cluster, where limits are requests; want no such field"},
		},
		"KubernetesNodes": {
			{`(self.headroom == 'karpenter') == has(self.nodePool)`, "nodePool: want the name of a static NodePool with headroom: karpenter, and none with another"},
			{`self.headroom in ['auto', 'none'] || has(self.nodeSelector) && size(self.nodeSelector) > 0`, "nodeSelector: is missing, and this headroom brings nodes; want labels that only the nodes for agents have"},
		},
		"Consumers": {
			{`has(self.replicas) != has(self.maxReplicas)`, "replicas: want either replicas, or minReplicas and maxReplicas"},
			{`!has(self.minReplicas) || has(self.maxReplicas) && self.minReplicas <= self.maxReplicas`, "minReplicas: want maxReplicas as well, and at most that"},
		},
		"Toleration": {
			{`has(self.key) && self.key != ''`, "key: is missing: agents would tolerate every node; want the key of a taint"},
			{`self.operator != 'Exists' || !has(self.value)`, "value: has no meaning with operator: Exists; want operator: Equal, or no value"},
		},
		"Secrets": {
			{`!has(self.dir)`, "dir: " + ownPlane + "; want kubernetes, the name of a Secret in the fleet's namespace"},
			{`!has(self.env) || !self.env`, "env: " + ownPlane + "; want kubernetes, the name of a Secret in the fleet's namespace"},
		},
		"Credential": {
			{`has(self.secret) && !has(self.env) && !has(self.file)`, "want secret: {name, key}, in the fleet's namespace; env and file are the control plane's own, which a fleet in a cluster cannot read"},
		},
		"QueueTLS": {{`has(self.cert) == has(self.key)`, "has only one of cert and key; want both, or neither"}},
		"KEDA": {
			{`has(self.cert) == has(self.key)`, "has only one of cert and key; want both, or neither"},
			{`!has(self.clientCA) || has(self.cert)`, "cert: is missing, and clients' certificates are asked for over TLS only; want a certificate and its key"},
		},
		"Target": {
			{`!has(self.min) || !has(self.max) || self.max == 0 || self.min <= self.max`, "min: is more than max; want at most max"},
			{`self.drives != 'nodes' || !has(self.template)`, "template: has no meaning with drives: nodes; want drives: workers, or no template"},
		},
		"Payload": {
			{`(has(self.format) && self.format == 'bytes') == has(self.task)`, "task: want a task with format: bytes, and none with another"},
			{`(has(self.format) && self.format == 'expr') == has(self.expr)`, "expr: want an expression with format: expr, and none with another"},
			{`has(self.format) && self.format == 'bytes' || !has(self.to) && !has(self.name)`, "to and name have no meaning with this format; want format: bytes"},
		},
		"Actual":     {{`has(self.prometheus) != has(self.http)`, "want exactly one of prometheus and http"}},
		"RedisQueue": {{`has(self.list) != has(self.stream)`, "has both or neither of list and stream; want exactly one"}},
	}
	for _, t := range []string{"redis", "rabbitmq", "sqs", "nats", "postgres", "kafka", "prometheus", "http", "temporal"} {
		out["Queue"] = append(out["Queue"], rule{
			`has(self.` + t + `) == (self.type == '` + t + `')`,
			t + ": want this block with type: " + t + ", and only then; see docs/queues",
		})
	}
	out["Queue"] = append(out["Queue"], rule{`self.type != 'embedded' || !has(self.payload)`, "payload: has no meaning with type embedded; want an outside queue, or no payload"})
	return out
}
