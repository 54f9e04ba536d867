// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/parser"

	"openshell.ai/openshell/internal/printable"
)

// maxGraphQLTokens bounds a GraphQL document, like OpenShell's parser.
const maxGraphQLTokens = 20_000

// operation is what policy sees of a GraphQL operation.
type operation struct {
	kind   string // query, mutation or subscription
	name   string
	fields []string // the root fields by name, not by alias: sorted, unique
	// persisted is the hash or id by which a stored operation is asked for. All
	// else is unknown then, but to the registry.
	persisted string
}

// graphqlKeys are the members of a request that say what is executed.
var graphqlKeys = []string{"query", "operationName", "variables", "extensions", "id", "documentId", "queryId"}

// requestOperations reads the operations of a request (GraphQL over HTTP, and
// its batches). The error says why they cannot be known.
func requestOperations(r *Request) ([]operation, error) {
	switch {
	case strings.EqualFold(r.Method, "GET"):
		return queryOperations(r)
	case !strings.EqualFold(r.Method, "POST"):
		return nil, fmt.Errorf("unsupported GraphQL HTTP method %s", printable.Brief(r.Method))
	}
	mediaType, err := checkMediaType(r.ContentType, "application/graphql")
	if err != nil {
		return nil, err
	}
	// Servers that read the query string of a POST prefer it to the body.
	params, err := url.ParseQuery(r.RawQuery)
	if err != nil {
		return nil, errors.New("the query string is not readable")
	}
	for key := range params {
		if slices.ContainsFunc(graphqlKeys, func(name string) bool { return strings.EqualFold(key, name) }) {
			return nil, fmt.Errorf("a POST must not have %s in its query string", printable.Brief(key))
		}
	}
	if mediaType == "application/graphql" {
		found, err := documentOperation(string(r.Body), "")
		return []operation{found}, err
	}
	if len(r.Body) == 0 {
		return nil, errors.New("GraphQL POST body is empty")
	}
	value, err := readJSON(r.Body)
	if err != nil {
		return nil, fmt.Errorf("GraphQL request body: %w", err)
	}
	batch, ok := value.([]any)
	switch {
	case !ok:
		return envelopeOperations(value)
	case len(batch) == 0:
		return nil, errors.New("GraphQL batch request is empty")
	}
	var operations []operation
	for _, item := range batch {
		some, err := envelopeOperations(item)
		if err != nil {
			return nil, err
		}
		operations = append(operations, some...)
	}
	return operations, nil
}

// queryOperations reads the operation of a GET from its query string.
func queryOperations(r *Request) ([]operation, error) {
	if len(r.Body) > 0 {
		return nil, errors.New("a GET must not have a body")
	}
	params, err := url.ParseQuery(r.RawQuery)
	if err != nil {
		return nil, errors.New("the query string is not readable")
	}
	envelope := map[string]any{}
	for key, values := range params {
		envelope[key] = values[0]
		if slices.Contains(graphqlKeys, key) && len(values) > 1 {
			return nil, fmt.Errorf("GraphQL GET parameter %q must not appear more than once", key)
		}
	}
	if text, _ := envelope["extensions"].(string); text != "" {
		if envelope["extensions"], err = readJSON([]byte(text)); err != nil {
			return nil, fmt.Errorf("GraphQL GET parameter extensions: %w", err)
		}
	} else {
		delete(envelope, "extensions")
	}
	return envelopeOperations(envelope)
}

// envelopeOperations reads one request's operation. It is two where a document
// is sent along with a stored one's id: which one the server takes is not known.
func envelopeOperations(value any) ([]operation, error) {
	envelope, ok := value.(map[string]any)
	if !ok {
		return nil, errors.New("GraphQL JSON envelope must be an object")
	}
	if err := checkKeys(envelope, graphqlKeys...); err != nil {
		return nil, err
	}
	query, err := stringMember(envelope, "query")
	if err != nil {
		return nil, err
	}
	name, err := stringMember(envelope, "operationName")
	if err != nil {
		return nil, err
	}
	id, err := persistedID(envelope)
	if err != nil {
		return nil, err
	}
	hash, err := persistedHash(envelope["extensions"])
	if err != nil {
		return nil, err
	}
	if hash != "" && id != "" {
		return nil, errors.New("a persisted query's hash and id must not be combined")
	}
	var operations []operation
	if strings.TrimSpace(query) != "" {
		sum := sha256.Sum256([]byte(query))
		if hash != "" && !strings.EqualFold(hash, hex.EncodeToString(sum[:])) {
			return nil, errors.New("sha256Hash is not the query's")
		}
		hash = "" // the server checks it, or stores the query by it
		found, err := documentOperation(query, name)
		if err != nil {
			return nil, err
		}
		operations = append(operations, found)
	}
	if persisted := hash + id; persisted != "" {
		operations = append(operations, operation{name: name, persisted: persisted})
	}
	if len(operations) == 0 {
		return nil, errors.New("GraphQL request has no query document or persisted query identifier")
	}
	return operations, nil
}

// persistedID returns the id of a stored operation, under one of its names.
func persistedID(envelope map[string]any) (string, error) {
	id := ""
	for _, key := range []string{"id", "documentId", "queryId"} {
		value, err := stringMember(envelope, key)
		switch {
		case err != nil:
			return "", err
		case value != "" && id != "":
			return "", errors.New("persisted-query ids must not be combined")
		case value != "":
			id = value
		}
	}
	return id, nil
}

// persistedHash returns extensions.persistedQuery.sha256Hash (Apollo's automatic
// persisted queries).
func persistedHash(extensions any) (string, error) {
	key, deeper := "persistedQuery", extensions
	for {
		object, ok := deeper.(map[string]any)
		switch {
		case deeper == nil:
			return "", nil
		case !ok:
			return "", errors.New("extensions and persistedQuery must be objects")
		}
		if err := checkKeys(object, key); err != nil {
			return "", err
		}
		if key == "sha256Hash" {
			return stringMember(object, key)
		}
		key, deeper = "sha256Hash", object[key]
	}
}

// documentOperation parses a document (GraphQL October 2021, section 2) and
// returns the operation that is executed.
func documentOperation(text, name string) (operation, error) {
	document, err := parser.ParseQueryWithTokenLimit(&ast.Source{Name: "query", Input: text}, maxGraphQLTokens)
	if err != nil {
		return operation{}, fmt.Errorf("GraphQL document parse error: %s", printable.Brief(err.Error()))
	}
	fragments, err := checkFragments(document)
	if err != nil {
		return operation{}, err
	}
	selected, err := selectOperation(document.Operations, name)
	if err != nil {
		return operation{}, err
	}
	fields := map[string]bool{}
	rootFields(selected.SelectionSet, fragments, map[string]bool{}, fields)
	if len(fields) == 0 {
		return operation{}, errors.New("GraphQL operation selects no field")
	}
	return operation{
		kind:   string(selected.Operation),
		name:   selected.Name,
		fields: slices.Sorted(maps.Keys(fields)),
	}, nil
}

// selectOperation returns the operation of that name, or the only one (section
// 6.1). Names that are not unique are refused: they may be, and servers differ.
func selectOperation(operations ast.OperationList, name string) (*ast.OperationDefinition, error) {
	var selected *ast.OperationDefinition
	seen := map[string]bool{}
	for _, o := range operations {
		if seen[o.Name] || o.Name == "" && len(operations) > 1 {
			return nil, errors.New("GraphQL operations of one document must have names of their own")
		}
		seen[o.Name] = true
		if name == "" || o.Name == name {
			selected = o
		}
	}
	switch {
	case len(operations) == 0:
		return nil, errors.New("GraphQL document contains no executable operation")
	case name == "" && len(operations) > 1:
		return nil, errors.New("GraphQL document has multiple operations but no operationName")
	case selected == nil:
		return nil, fmt.Errorf("GraphQL operationName %s was not found", printable.Brief(name))
	}
	return selected, nil
}

// checkFragments returns the document's fragments by name. It refuses spreads of
// unknown ones, cycles (section 5.5) and deep nesting.
func checkFragments(document *ast.QueryDocument) (map[string]*ast.FragmentDefinition, error) {
	fragments := map[string]*ast.FragmentDefinition{}
	for _, f := range document.Fragments {
		if fragments[f.Name] != nil {
			return nil, fmt.Errorf("GraphQL fragment %s is defined twice", printable.Brief(f.Name))
		}
		fragments[f.Name] = f
	}
	w := fragmentWalk{fragments: fragments, state: map[string]visit{}}
	for _, o := range document.Operations {
		if err := w.selections(o.SelectionSet, 1); err != nil {
			return nil, err
		}
	}
	for _, f := range document.Fragments {
		if err := w.fragment(f.Name); err != nil {
			return nil, err
		}
	}
	return fragments, nil
}

// visit is how far a fragment has been walked.
type visit int

const (
	unseen visit = iota
	entered
	left
)

type fragmentWalk struct {
	fragments map[string]*ast.FragmentDefinition
	state     map[string]visit
}

func (w *fragmentWalk) fragment(name string) error {
	f := w.fragments[name]
	switch {
	case f == nil:
		return fmt.Errorf("GraphQL fragment %s is not defined", printable.Brief(name))
	case w.state[name] == entered:
		return fmt.Errorf("GraphQL fragment %s includes itself", printable.Brief(name))
	case w.state[name] == left:
		return nil
	}
	w.state[name] = entered
	if err := w.selections(f.SelectionSet, 1); err != nil {
		return err
	}
	w.state[name] = left
	return nil
}

func (w *fragmentWalk) selections(set ast.SelectionSet, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("GraphQL selections are nested deeper than %d", maxDepth)
	}
	for _, selection := range set {
		var err error
		switch s := selection.(type) {
		case *ast.Field:
			err = w.selections(s.SelectionSet, depth+1)
		case *ast.InlineFragment:
			err = w.selections(s.SelectionSet, depth+1)
		case *ast.FragmentSpread:
			err = w.fragment(s.Name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// rootFields collects the fields of an operation's root, those of fragments
// included, whatever @skip and @include may leave of them.
func rootFields(set ast.SelectionSet, fragments map[string]*ast.FragmentDefinition, expanded, fields map[string]bool) {
	for _, selection := range set {
		switch s := selection.(type) {
		case *ast.Field:
			fields[s.Name] = true
		case *ast.InlineFragment:
			rootFields(s.SelectionSet, fragments, expanded, fields)
		case *ast.FragmentSpread:
			if !expanded[s.Name] {
				expanded[s.Name] = true
				rootFields(fragments[s.Name].SelectionSet, fragments, expanded, fields)
			}
		}
	}
}

// messageOperations reads what a message asks to execute: nothing, where it
// only controls the connection.
func messageOperations(message []byte) ([]operation, error) {
	value, err := readJSON(message)
	if err != nil {
		return nil, err
	}
	object, ok := value.(map[string]any)
	if !ok {
		return nil, errors.New("a message must be an object")
	}
	if err := checkKeys(object, "type", "id", "payload"); err != nil {
		return nil, err
	}
	kind, err := stringMember(object, "type")
	if err != nil {
		return nil, err
	}
	switch kind {
	case "connection_init", "connection_terminate", "ping", "pong", "complete", "stop":
		return nil, nil
	case "subscribe", "start":
	default:
		return nil, fmt.Errorf("unsupported client message type %s", printable.Brief(kind))
	}
	if id, _ := object["id"].(string); id == "" {
		return nil, errors.New("an operation needs an id")
	}
	return envelopeOperations(object["payload"])
}
