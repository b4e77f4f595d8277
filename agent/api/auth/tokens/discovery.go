package tokens

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"math/big"
	"net/http"
	"slices"
	"strconv"
)

// Paths of the documents.
const (
	ConfigurationPath = "/.well-known/openid-configuration"
	KeySetPath        = "/openid/v1/jwks"

	// cacheSeconds is how long clients may keep the documents.
	cacheSeconds = 3600
)

// VerifyingKey is a public key with its id.
type VerifyingKey struct {
	ID  string
	Key crypto.PublicKey
}

// Discovery serves the OpenID documents about the issuer.
type Discovery struct {
	issuer, keySetURL string
	keys              func() []VerifyingKey
}

// NewDiscovery describes an issuer whose key set is reachable at keySetURL; keys lists the current ones.
func NewDiscovery(issuer, keySetURL string, keys func() []VerifyingKey) (*Discovery, error) {
	if issuer == "" || keySetURL == "" || keys == nil {
		return nil, errors.New("make token discovery: issuer, key set address and keys are needed")
	}
	return &Discovery{issuer: issuer, keySetURL: keySetURL, keys: keys}, nil
}

// ServeConfiguration answers [ConfigurationPath].
func (d *Discovery) ServeConfiguration(w http.ResponseWriter, _ *http.Request) {
	algorithms := []string{}
	for _, k := range d.keys() {
		if alg, err := algorithm(k.Key); err == nil && !slices.Contains(algorithms, alg) {
			algorithms = append(algorithms, alg)
		}
	}
	answer(w, "application/json", struct {
		Issuer        string   `json:"issuer"`
		KeySet        string   `json:"jwks_uri"`
		ResponseTypes []string `json:"response_types_supported"`
		SubjectTypes  []string `json:"subject_types_supported"`
		Algorithms    []string `json:"id_token_signing_alg_values_supported"`
	}{d.issuer, d.keySetURL, []string{"id_token"}, []string{"public"}, algorithms})
}

// jsonKey is a public key in the form of a JSON web key.
type jsonKey struct {
	Use       string `json:"use"`
	Type      string `json:"kty"`
	ID        string `json:"kid"`
	Curve     string `json:"crv,omitempty"`
	Algorithm string `json:"alg"`
	X         string `json:"x,omitempty"`
	Y         string `json:"y,omitempty"`
	N         string `json:"n,omitempty"`
	E         string `json:"e,omitempty"`
}

// ServeKeySet answers [KeySetPath].
func (d *Discovery) ServeKeySet(w http.ResponseWriter, _ *http.Request) {
	keys := []jsonKey{}
	for _, k := range d.keys() {
		switch key := k.Key.(type) {
		case *rsa.PublicKey:
			keys = append(keys, jsonKey{Use: "sig", Type: "RSA", ID: k.ID, Algorithm: algRSA,
				N: encode(key.N.Bytes()), E: encode(big.NewInt(int64(key.E)).Bytes())})
		case *ecdsa.PublicKey:
			if point, err := key.Bytes(); err == nil && len(point) == 1+2*p256Bytes {
				keys = append(keys, jsonKey{Use: "sig", Type: "EC", ID: k.ID, Algorithm: algECDSA, Curve: "P-256",
					X: encode(point[1 : 1+p256Bytes]), Y: encode(point[1+p256Bytes:])})
			}
		}
	}
	answer(w, "application/jwk-set+json", struct {
		Keys []jsonKey `json:"keys"`
	}{keys})
}

func answer(w http.ResponseWriter, contentType string, document any) {
	body, err := json.Marshal(document)
	if err != nil {
		http.Error(w, "encode document", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Cache-Control", "public, max-age="+strconv.Itoa(cacheSeconds))
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) // the client is gone; nobody to tell
}
