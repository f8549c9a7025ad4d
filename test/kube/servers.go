package kubetest

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// kwokStages keep the nodes ready that carry kwok's annotation, as kubelets do.
//
//go:embed stages.yaml
var kwokStages []byte

// schedulerConfig lets pods that did not fit be tried again soon.
const schedulerConfig = `apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
leaderElection: {leaderElect: false}
clientConnection: {kubeconfig: %s, qps: 2000, burst: 4000}
parallelism: 4
podInitialBackoffSeconds: 1
podMaxBackoffSeconds: 2
`

// The controllers that matter to pods, nodes and what makes them.
const controllers = "serviceaccount-controller,serviceaccount-token-controller,root-ca-certificate-publisher-controller," +
	"replicaset-controller,deployment-controller,statefulset-controller,daemonset-controller,job-controller," +
	"garbage-collector-controller,namespace-controller,pod-garbage-collector-controller,disruption-controller," +
	"endpoints-controller,endpointslice-controller,node-lifecycle-controller,taint-eviction-controller," +
	"resourcequota-controller,clusterrole-aggregation-controller,horizontal-pod-autoscaler-controller"

// servers are the processes of one cluster.
type servers struct {
	program string // of test/kube/controlplane
	dir     string
	id      *identity
	ports   struct{ etcd, peer, api int }

	mu      sync.Mutex
	running map[string]*process
}

func (s *servers) url() string { return "https://" + address(s.ports.api) }

func address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// up starts them all, and returns once each of them works.
func (s *servers) up() error {
	ports, err := freePorts(3)
	if err != nil {
		return err
	}
	s.ports.etcd, s.ports.peer, s.ports.api = ports[0], ports[1], ports[2]
	s.running = map[string]*process{}
	if err := s.etcd(); err != nil {
		return err
	}
	if err := s.apiserver(); err != nil {
		return err
	}
	return s.clients()
}

// down ends them all, those that talk to others first.
func (s *servers) down() {
	for _, name := range []string{"kwok", "kube-scheduler", "kube-controller-manager", "kube-apiserver", "etcd"} {
		s.kill(name)
	}
}

// ended is nil while all of them run.
func (s *servers) ended() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, p := range s.running {
		errs = append(errs, p.ended())
	}
	return errors.Join(errs...)
}

func (s *servers) start(name string, memory string, args ...string) (*process, error) {
	cmd := exec.Command(s.program, append([]string{name}, args...)...)
	cmd.Dir = s.dir
	cmd.Env = environ("HOME="+s.dir, "GOMEMLIMIT="+memory, "GOGC=200")
	p, err := start(name, cmd)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running[name] = p
	return p, nil
}

// kill ends a server at once.
func (s *servers) kill(name string) {
	s.mu.Lock()
	p := s.running[name]
	delete(s.running, name)
	s.mu.Unlock()
	p.kill()
}

func (s *servers) etcd() error {
	client, peer := "http://"+address(s.ports.etcd), "http://"+address(s.ports.peer)
	p, err := s.start("etcd", "512MiB",
		"--data-dir="+filepath.Join(s.dir, "etcd"), "--unsafe-no-fsync=true", "--log-level=error",
		"--listen-client-urls="+client, "--advertise-client-urls="+client,
		"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer, "--initial-cluster=default="+peer,
		"--quota-backend-bytes="+strconv.Itoa(2<<30), "--snapshot-count=10000")
	if err != nil {
		return err
	}
	return p.await(func() error {
		c, err := net.DialTimeout("tcp", address(s.ports.etcd), time.Second)
		if err != nil {
			return err
		}
		return c.Close()
	}, 2*time.Minute)
}

// apiserver starts the API server; it serves once its hooks have run. Pods that
// do not say otherwise leave a lost node after two seconds and not after five
// minutes.
func (s *servers) apiserver() error {
	p, err := s.start("kube-apiserver", "1500MiB",
		"--etcd-servers=http://"+address(s.ports.etcd), "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1",
		"--secure-port="+strconv.Itoa(s.ports.api), "--endpoint-reconciler-type=none",
		"--tls-cert-file="+s.id.path("apiserver.crt"), "--tls-private-key-file="+s.id.path("apiserver.key"),
		"--token-auth-file="+s.id.path("tokens.csv"), "--authorization-mode=RBAC",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file="+s.id.path("accounts.pub"), "--service-account-signing-key-file="+s.id.path("accounts.key"),
		"--service-cluster-ip-range=10.96.0.0/16", "--allow-privileged=true", "--profiling=false",
		"--default-not-ready-toleration-seconds=2", "--default-unreachable-toleration-seconds=2")
	if err != nil {
		return err
	}
	c, err := s.client(userAdmin)
	if err != nil {
		return err
	}
	return p.await(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		return c.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	}, time.Minute)
}

// client talks to the API server as one of the users.
func (s *servers) client(user string) (kubernetes.Interface, error) {
	c, err := kubernetes.NewForConfig(s.config(user))
	if err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	return c, nil
}

// clients starts what works through the API server, all at once, and waits for
// what their work shows.
func (s *servers) clients() error {
	configs := map[string]string{}
	for _, user := range []string{userAdmin, userKCM, userScheduler, userKwok} {
		file, err := s.id.kubeconfig(s.url(), user)
		if err != nil {
			return err
		}
		configs[user] = file
	}
	scheduler, stages := filepath.Join(s.dir, "scheduler.yaml"), filepath.Join(s.dir, "stages.yaml")
	if err := os.WriteFile(scheduler, fmt.Appendf(nil, schedulerConfig, configs[userScheduler]), 0o600); err != nil {
		return fmt.Errorf("write the scheduler's configuration: %w", err)
	}
	if err := os.WriteFile(stages, kwokStages, 0o600); err != nil {
		return fmt.Errorf("write kwok's stages: %w", err)
	}
	kcm, err := s.start("kube-controller-manager", "768MiB",
		"--kubeconfig="+configs[userKCM], "--leader-elect=false", "--secure-port=0", "--controllers="+controllers,
		"--service-account-private-key-file="+s.id.path("accounts.key"), "--root-ca-file="+s.id.path("ca.crt"),
		"--kube-api-qps=2000", "--kube-api-burst=4000", "--concurrent-namespace-syncs=20", "--concurrent-gc-syncs=20",
		"--node-monitor-period=1s", "--node-monitor-grace-period=40s", "--node-eviction-rate=100",
		"--horizontal-pod-autoscaler-sync-period=15s", "--profiling=false")
	if err != nil {
		return err
	}
	if _, err := s.start("kube-scheduler", "512MiB", "--config="+scheduler, "--secure-port=0"); err != nil {
		return err
	}
	if _, err := s.start("kwok", "512MiB", "--kubeconfig="+configs[userKwok], "--config="+stages,
		"--manage-nodes-with-annotation-selector="+kwokAnnotation+"="+kwokFake, "--node-ip=127.0.0.1",
		"--node-lease-duration-seconds=40"); err != nil {
		return err
	}
	admin, err := s.client(userAdmin)
	if err != nil {
		return err
	}
	if err := kcm.await(func() error { return accountExists(admin, "default") }, time.Minute); err != nil {
		return err
	}
	return s.ended()
}

// accountExists says that pods can be made in the namespace: without its
// service account they are refused.
func accountExists(c kubernetes.Interface, namespace string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, err := c.CoreV1().ServiceAccounts(namespace).Get(ctx, "default", metav1.GetOptions{})
	return err
}
