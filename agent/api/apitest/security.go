package apitest

import (
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"

	"github.com/podvine/podvine/agent/api"
	"github.com/podvine/podvine/agent/api/auth"
	"github.com/podvine/podvine/agent/pki"
)

// security builds who may do what, as the agent does.
type security struct{ pki *pki.PKI }

func (s *security) build(access api.Access) (api.Security, error) {
	authenticator, err := auth.NewAuthenticator(auth.AuthenticatorConfig{ClientCA: s.pki.ClusterCA()})
	if err != nil {
		return api.Security{}, err
	}
	return api.Security{Authenticator: authenticator, Authorizer: authorizerfactory.NewAlwaysAllowAuthorizer()}, nil
}
