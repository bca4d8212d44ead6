// Certificates, keys and kubeconfigs. They are made once and kept, so that a kubeconfig that
// somebody copied goes on working after `down` and `up`.
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	clientcmd "k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

const certificateLife = 10 * 365 * 24 * time.Hour

// identity is what a certificate says of its holder: user and groups, or a server's names.
type identity struct {
	file   string
	user   string
	groups []string
	names  []string
	ips    []string
}

func servingIdentity() identity {
	return identity{
		file: "apiserver", user: "kube-apiserver",
		names: []string{
			"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
			"kubernetes.default.svc.cluster.local",
		},
		ips: []string{"127.0.0.1", nodeIP, serviceIP},
	}
}

// identities are all leaf certificates. Part names double as the names of their kubeconfigs.
func identities() []identity {
	masters := []string{"system:masters"}
	return []identity{
		servingIdentity(),
		{file: "kubelet-serving", user: "kubelet", names: []string{realNodeName}, ips: []string{nodeIP}},
		{file: "simulated-serving", user: "simulated", ips: []string{simNodeIP}},
		{file: "apiserver-to-kubelet", user: "kube-apiserver-kubelet-client", groups: masters},
		{file: "admin", user: "admin", groups: masters},
		// The supervisor's own requests stay apart from the users' in the audit log.
		{file: "supervisor", user: "system:stoker-cluster", groups: masters},
		{file: "kube-controller-manager", user: "system:kube-controller-manager", groups: masters},
		{file: "kube-scheduler", user: "system:kube-scheduler"},
		{file: "kube-proxy", user: "system:kube-proxy"},
		{file: "kwok", user: "system:kwok", groups: masters},
		{file: "kubelet", user: "system:node:" + realNodeName, groups: []string{"system:nodes"}},
	}
}

// ensurePKI makes what is missing below dir and renews all of it when the authority is unusable.
func ensurePKI(l layout) error {
	if err := os.MkdirAll(l.path("pki"), 0o700); err != nil {
		return err
	}
	ca, caKey, err := loadAuthority(l)
	if err != nil {
		if err := os.RemoveAll(l.path("pki")); err != nil {
			return err
		}
		if ca, caKey, err = makeAuthority(l); err != nil {
			return fmt.Errorf("making the certificate authority: %w", err)
		}
	}
	for _, id := range identities() {
		if leafUsable(l, id, ca) {
			continue
		}
		if err := makeLeaf(l, id, ca, caKey); err != nil {
			return fmt.Errorf("making the certificate %s: %w", id.file, err)
		}
	}
	if _, err := os.Stat(l.pki("service-accounts.key")); errors.Is(err, os.ErrNotExist) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return err
		}
		if err := writeKeyPair(l, "service-accounts", key); err != nil {
			return err
		}
	}
	return nil
}

func loadAuthority(l layout) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	ca, err := readCertificate(l.pki("ca.crt"))
	if err != nil {
		return nil, nil, err
	}
	if time.Until(ca.NotAfter) < 24*time.Hour {
		return nil, nil, errors.New("expired")
	}
	data, err := os.ReadFile(l.pki("ca.key"))
	if err != nil {
		return nil, nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, nil, errors.New("no PEM block")
	}
	key, err := x509.ParseECPrivateKey(block.Bytes)
	return ca, key, err
}

func makeAuthority(l layout) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "stoker-cluster"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := sign(template, template, key, key)
	if err != nil {
		return nil, nil, err
	}
	if err := writePEM(l.pki("ca.crt"), "CERTIFICATE", der, 0o644); err != nil {
		return nil, nil, err
	}
	if err := writeKeyPair(l, "ca", key); err != nil {
		return nil, nil, err
	}
	ca, err := x509.ParseCertificate(der)
	return ca, key, err
}

func makeLeaf(l layout, id identity, ca *x509.Certificate, caKey *ecdsa.PrivateKey) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := sign(leafTemplate(id), ca, key, caKey)
	if err != nil {
		return err
	}
	if err := writePEM(l.pki(id.file+".crt"), "CERTIFICATE", der, 0o644); err != nil {
		return err
	}
	return writeKeyPair(l, id.file, key)
}

func leafTemplate(id identity) *x509.Certificate {
	usage := x509.ExtKeyUsageClientAuth
	var ips []net.IP
	for _, ip := range id.ips {
		ips = append(ips, net.ParseIP(ip))
	}
	if len(ips) > 0 {
		usage = x509.ExtKeyUsageServerAuth
	}
	return &x509.Certificate{
		Subject:     pkix.Name{CommonName: id.user, Organization: id.groups},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{usage},
		DNSNames:    id.names, IPAddresses: ips,
	}
}

func sign(template, parent *x509.Certificate, key, parentKey *ecdsa.PrivateKey) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	template.NotBefore = time.Now().Add(-time.Hour) // clocks of virtual machines step back
	template.NotAfter = time.Now().Add(certificateLife)
	return x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
}

// leafUsable tells whether the certificate on disk still is the one that identities asks for.
func leafUsable(l layout, id identity, ca *x509.Certificate) bool {
	leaf, err := readCertificate(l.pki(id.file + ".crt"))
	if err != nil || leaf.CheckSignatureFrom(ca) != nil || leaf.Subject.CommonName != id.user {
		return false
	}
	if _, err := os.Stat(l.pki(id.file + ".key")); err != nil {
		return false
	}
	for _, name := range append(append([]string{}, id.names...), id.ips...) {
		if leaf.VerifyHostname(name) != nil {
			return false
		}
	}
	return time.Until(leaf.NotAfter) > 24*time.Hour
}

func readCertificate(file string) (*x509.Certificate, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("%s holds no PEM block", file)
	}
	return x509.ParseCertificate(block.Bytes)
}

func writePEM(file, kind string, der []byte, mode os.FileMode) error {
	return writeFileAtomically(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), mode)
}

func writeKeyPair(l layout, name string, key *ecdsa.PrivateKey) error {
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return err
	}
	if err := writePEM(l.pki(name+".key"), "EC PRIVATE KEY", private, 0o600); err != nil {
		return err
	}
	return writePEM(l.pki(name+".pub"), "PUBLIC KEY", public, 0o644)
}

// writeKubeconfigs writes the users' kubeconfig and one for each part.
func writeKubeconfigs(l layout, port int) error {
	for _, id := range identities() {
		if len(id.ips) > 0 {
			continue
		}
		file := l.partConfig(id.file)
		if id.file == "admin" {
			file = l.kubeconfig()
		}
		if err := writeKubeconfig(l, file, id.file, port); err != nil {
			return fmt.Errorf("writing %s: %w", file, err)
		}
	}
	return nil
}

func writeKubeconfig(l layout, file, user string, port int) error {
	read := func(name string) []byte {
		data, err := os.ReadFile(l.pki(name))
		if err != nil {
			panic(fmt.Sprintf("ensurePKI has not run: %v", err))
		}
		return data
	}
	config := clientcmdapi.NewConfig()
	config.Clusters["stoker"] = &clientcmdapi.Cluster{
		Server:                   fmt.Sprintf("https://127.0.0.1:%d", port),
		CertificateAuthorityData: read("ca.crt"),
	}
	config.AuthInfos[user] = &clientcmdapi.AuthInfo{
		ClientCertificateData: read(user + ".crt"), ClientKeyData: read(user + ".key"),
	}
	config.Contexts["stoker"] = &clientcmdapi.Context{Cluster: "stoker", AuthInfo: user}
	config.CurrentContext = "stoker"
	data, err := clientcmd.Write(*config)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return writeFileAtomically(file, data, 0o600)
}
