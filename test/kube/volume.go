package kubetest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// volumes are the directories of a pod's volumes, by name.
type volumes struct {
	dirs  map[string]string
	token string // the projected token for an audience of its own, if there is one
}

// mount makes the directories and fills those that have content: tokens,
// ConfigMaps and Secrets.
func (p *pod) mount(ctx context.Context) (*volumes, error) {
	v := &volumes{dirs: map[string]string{}}
	if err := os.MkdirAll(filepath.Dir(p.dir), 0o711); err != nil { //nolint:gosec // traversed by users of pods
		return nil, err
	}
	if err := p.directory(p.dir); err != nil {
		return nil, err
	}
	for i := range p.spec.Spec.Volumes {
		vol := &p.spec.Spec.Volumes[i]
		dir := filepath.Join(p.dir, vol.Name)
		if err := p.directory(dir); err != nil {
			return nil, err
		}
		v.dirs[vol.Name] = dir
		files, err := p.content(ctx, vol, v)
		if err != nil {
			return nil, fmt.Errorf("volume %s: %w", vol.Name, err)
		}
		for name, b := range files {
			if err := p.file(filepath.Join(dir, name), b); err != nil {
				return nil, fmt.Errorf("volume %s: %w", vol.Name, err)
			}
		}
	}
	return v, nil
}

// content are the files of a volume, by their paths in it.
func (p *pod) content(ctx context.Context, vol *corev1.Volume, v *volumes) (map[string][]byte, error) {
	switch {
	case vol.EmptyDir != nil:
		return nil, nil
	case vol.ConfigMap != nil:
		return p.configMap(ctx, vol.ConfigMap.Name)
	case vol.Secret != nil:
		return p.secret(ctx, vol.Secret.SecretName)
	case vol.Projected == nil:
		return nil, errors.New("this kubelet knows emptyDir, configMap, secret and projected volumes only")
	}
	files := map[string][]byte{}
	for _, s := range vol.Projected.Sources {
		var some map[string][]byte
		var err error
		switch {
		case s.ServiceAccountToken != nil:
			var token string
			if token, err = p.request(ctx, s.ServiceAccountToken); err == nil {
				some = map[string][]byte{s.ServiceAccountToken.Path: []byte(token)}
			}
			if s.ServiceAccountToken.Audience != "" {
				v.token = token
			}
		case s.ConfigMap != nil:
			some, err = p.configMap(ctx, s.ConfigMap.Name)
		case s.Secret != nil:
			some, err = p.secret(ctx, s.Secret.Name)
		case s.DownwardAPI != nil:
			some = map[string][]byte{}
			for _, f := range s.DownwardAPI.Items {
				if f.FieldRef != nil {
					some[f.Path] = []byte(p.field(f.FieldRef.FieldPath))
				}
			}
		default:
			err = errors.New("this kubelet projects tokens of service accounts, ConfigMaps, Secrets and fields of the pod only")
		}
		if err != nil {
			return nil, err
		}
		for name, b := range some {
			files[name] = b
		}
	}
	return files, nil
}

// request gets a token that is bound to this pod.
func (p *pod) request(ctx context.Context, s *corev1.ServiceAccountTokenProjection) (string, error) {
	r := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: s.ExpirationSeconds,
		BoundObjectRef:    &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: p.spec.Name, UID: p.spec.UID},
	}}
	if s.Audience != "" {
		r.Spec.Audiences = []string{s.Audience}
	}
	got, err := p.kubelet.cluster.Client.CoreV1().ServiceAccounts(p.spec.Namespace).CreateToken(ctx, p.spec.Spec.ServiceAccountName, r, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("request a token: %w", err)
	}
	return got.Status.Token, nil
}

func (p *pod) configMap(ctx context.Context, name string) (map[string][]byte, error) {
	m, err := p.kubelet.cluster.Client.CoreV1().ConfigMaps(p.spec.Namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("read the ConfigMap %s: %w", name, err)
	}
	files := m.BinaryData
	if files == nil {
		files = map[string][]byte{}
	}
	for k, text := range m.Data {
		files[k] = []byte(text)
	}
	return files, nil
}

func (p *pod) secret(ctx context.Context, name string) (map[string][]byte, error) {
	s, err := p.kubelet.cluster.Client.CoreV1().Secrets(p.spec.Namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("read the Secret %s: %w", name, err)
	}
	return s.Data, nil
}

// directory makes one that the pod's user owns.
func (p *pod) directory(name string) error {
	if err := os.MkdirAll(name, 0o700); err != nil {
		return err
	}
	return p.own(name)
}

func (p *pod) file(name string, b []byte) error {
	if dir := filepath.Dir(name); dir != p.dir {
		if err := p.directory(dir); err != nil {
			return err
		}
	}
	if err := os.WriteFile(name, b, 0o600); err != nil {
		return err
	}
	return p.own(name)
}

func (p *pod) own(name string) error {
	u := p.user(&p.spec.Spec.Containers[0])
	if u == nil {
		return nil
	}
	return os.Chown(name, int(u.Uid), int(u.Gid))
}

// hand plays the init container of a sandbox for runners that are not
// processes: the token goes where the first container looks for it.
func (p *pod) hand(v *volumes) error {
	first := &p.spec.Spec.Containers[0]
	to := p.environment(first, v)["MUSTER_IDENTITY"]
	if v.token == "" || to == "" {
		return nil
	}
	if !strings.HasPrefix(to, p.dir) {
		return fmt.Errorf("MUSTER_IDENTITY=%s is in no volume of the container %s", to, first.Name)
	}
	return p.file(to, []byte(v.token))
}

// rewrite makes a path of this machine of a path in a volume of the container.
func (v *volumes) rewrite(c *corev1.Container, value string) string {
	best := ""
	to := ""
	for _, m := range c.VolumeMounts {
		at := strings.TrimSuffix(m.MountPath, "/")
		rest, ok := strings.CutPrefix(value, at)
		if ok && (rest == "" || rest[0] == '/') && len(at) > len(best) {
			best, to = at, filepath.Join(v.dirs[m.Name], m.SubPath)+rest
		}
	}
	if best == "" {
		return value
	}
	return to
}
