package kubetest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// identity is what the servers prove themselves with, as files in a directory.
type identity struct {
	dir string
	ca  []byte // PEM
	// tokens of the users, all of them in system:masters: what these tests are
	// about is the rights of service accounts.
	tokens map[string]string
}

// The users beside service accounts, as a real cluster names them.
const (
	userAdmin     = "admin"
	userKCM       = "system:kube-controller-manager"
	userScheduler = "system:kube-scheduler"
	userKwok      = "system:kwok"
)

func (i *identity) path(name string) string { return filepath.Join(i.dir, name) }

// newIdentity writes a certificate authority, a certificate for the API
// server, the key that signs the tokens of service accounts, and the tokens of
// the users.
func newIdentity(dir string) (*identity, error) {
	id := &identity{dir: dir, tokens: map[string]string{}}
	caKey, caCert, err := id.authority()
	if err != nil {
		return nil, err
	}
	if err := id.serving(caKey, caCert); err != nil {
		return nil, err
	}
	account, err := newKey()
	if err != nil {
		return nil, err
	}
	if err := id.writeKey("accounts.key", account); err != nil {
		return nil, err
	}
	public, err := x509.MarshalPKIXPublicKey(account.Public())
	if err != nil {
		return nil, fmt.Errorf("encode the key of service accounts: %w", err)
	}
	if err := id.write("accounts.pub", "PUBLIC KEY", public); err != nil {
		return nil, err
	}
	list := ""
	for n, user := range []string{userAdmin, userKCM, userScheduler, userKwok} {
		id.tokens[user] = rand.Text()
		list += fmt.Sprintf("%s,%s,uid-%d,\"system:masters\"\n", id.tokens[user], user, n)
	}
	if err := os.WriteFile(id.path("tokens.csv"), []byte(list), 0o600); err != nil {
		return nil, fmt.Errorf("write the tokens: %w", err)
	}
	return id, nil
}

func (i *identity) authority() (*ecdsa.PrivateKey, *x509.Certificate, error) {
	key, err := newKey()
	if err != nil {
		return nil, nil, err
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "kubetest"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(0, 0, 7),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, key.Public(), key)
	if err != nil {
		return nil, nil, fmt.Errorf("make the certificate authority: %w", err)
	}
	i.ca = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return key, ca, i.write("ca.crt", "CERTIFICATE", der)
}

func (i *identity) serving(caKey *ecdsa.PrivateKey, ca *x509.Certificate) error {
	key, err := newKey()
	if err != nil {
		return err
	}
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "kube-apiserver"},
		NotBefore: ca.NotBefore, NotAfter: ca.NotAfter, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:    []string{"localhost", "kubernetes.default.svc"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, ca, key.Public(), caKey)
	if err != nil {
		return fmt.Errorf("make the API server's certificate: %w", err)
	}
	if err := i.write("apiserver.crt", "CERTIFICATE", der); err != nil {
		return err
	}
	return i.writeKey("apiserver.key", key)
}

func newKey() (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	return key, nil
}

func (i *identity) writeKey(name string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return fmt.Errorf("encode %s: %w", name, err)
	}
	return i.write(name, "EC PRIVATE KEY", der)
}

func (i *identity) write(name, kind string, der []byte) error {
	b := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	if err := os.WriteFile(i.path(name), b, 0o600); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

// kubeconfig writes the kubeconfig of a user and returns its path.
func (i *identity) kubeconfig(server, user string) (string, error) {
	c := clientcmdapi.NewConfig()
	c.Clusters["kubetest"] = &clientcmdapi.Cluster{Server: server, CertificateAuthorityData: i.ca}
	c.AuthInfos[user] = &clientcmdapi.AuthInfo{Token: i.tokens[user]}
	c.Contexts["kubetest"] = &clientcmdapi.Context{Cluster: "kubetest", AuthInfo: user, Namespace: "default"}
	c.CurrentContext = "kubetest"
	file := i.path("kubeconfig-" + filepath.Base(user))
	if err := clientcmd.WriteToFile(*c, file); err != nil {
		return "", fmt.Errorf("write the kubeconfig of %s: %w", user, err)
	}
	return file, nil
}
