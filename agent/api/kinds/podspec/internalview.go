package podspec

import "encoding/json"

// InternalView wraps a value for an error text: Kubernetes prints the untagged Go names of its internal types.
func InternalView(v any) json.Marshaler { return internalView{v} }

type internalView struct{ value any }

func (i internalView) MarshalJSON() ([]byte, error) { return json.Marshal(i.value) }
