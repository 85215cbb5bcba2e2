// SPDX-License-Identifier: Apache-2.0
//! The attribute `#[harness::test]`: leaves a function as it is and registers it.
//!
//! What the attribute can be told is not known here. Each word of it becomes a call of a function of `harness::Machine`, so that the
//! compiler refuses what there is not, where it is written, and says what is near.

use std::iter;

use proc_macro::{Delimiter, Group, Ident, Literal, Punct, Spacing, TokenStream, TokenTree};

/// Makes a function a test that runs in a virtual machine of its own: see the package `harness`.
#[proc_macro_attribute]
pub fn test(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let (item, ignored) = without_ignore(item);
    let Some(name) = name(&item) else {
        return source("::core::compile_error!(\"#[harness::test] is for functions\");");
    };
    let machine = source("::harness::Machine::new()").into_iter().chain(words(attribute)).collect();
    let text = TokenTree::from(Literal::string(&name.to_string())).into();
    let call = [TokenTree::from(name), parentheses(TokenStream::new())].into_iter().collect();
    let report = source("|| ::std::process::Termination::report").into_iter().chain([parentheses(call)]).collect();
    let arguments = [source("::core::module_path!()"), text, machine, ignored, report];
    let arguments = arguments.into_iter().flat_map(|argument| argument.into_iter().chain([punct(',')])).collect();
    let registered = source("::harness::Registered::new").into_iter().chain([parentheses(arguments)]).collect();
    let registered = Group::new(Delimiter::Brace, registered);
    item.into_iter().chain(source("::harness::inventory::submit!")).chain([registered.into()]).collect()
}

fn source(text: &str) -> TokenStream {
    text.parse().unwrap_or_default()
}

fn punct(letter: char) -> TokenTree {
    Punct::new(letter, Spacing::Alone).into()
}

fn parentheses(tokens: TokenStream) -> TokenTree {
    Group::new(Delimiter::Parenthesis, tokens).into()
}

/// `memory = "1G", root, files = ["x"]` as `.memory("1G").root().files(&["x"])`.
fn words(attribute: TokenStream) -> Vec<TokenTree> {
    let tokens: Vec<TokenTree> = attribute.into_iter().collect();
    let is = |token: &TokenTree, letter| matches!(token, TokenTree::Punct(punct) if punct.as_char() == letter);
    let mut calls = Vec::new();
    for word in tokens.split(|token| is(token, ',')).filter(|word| !word.is_empty()) {
        let (name, value) = match word.iter().position(|token| is(token, '=')) {
            Some(at) => (&word[..at], &word[at + 1..]),
            None => (word, &word[..0]),
        };
        let list = matches!(value.first(), Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Bracket);
        let value = iter::once(punct('&')).filter(|_| list).chain(value.iter().cloned()).collect();
        calls.extend(iter::once(punct('.')).chain(name.iter().cloned()).chain([parentheses(value)]));
    }
    calls
}

/// The function without its `#[ignore]`, and the reason that has, as an `Option`.
fn without_ignore(item: TokenStream) -> (TokenStream, TokenStream) {
    let mut tokens: Vec<TokenTree> = item.into_iter().collect();
    let ignore = tokens.iter().position(|token| match token {
        TokenTree::Group(group) if group.delimiter() == Delimiter::Bracket => {
            matches!(group.stream().into_iter().next(), Some(TokenTree::Ident(name)) if name.to_string() == "ignore")
        }
        _ => false,
    });
    let Some(at) = ignore.filter(|at| *at > 0) else {
        return (tokens.into_iter().collect(), source("::core::option::Option::None"));
    };
    let reason = match &tokens[at] {
        TokenTree::Group(group) => group.stream().into_iter().nth(2),
        _ => None,
    };
    // With the sign before it.
    tokens.drain(at - 1..=at);
    let reason = reason.unwrap_or_else(|| Literal::string("").into());
    let some = source("::core::option::Option::Some").into_iter().chain([parentheses(reason.into())]).collect();
    (tokens.into_iter().collect(), some)
}

fn name(item: &TokenStream) -> Option<Ident> {
    let mut tokens = item.clone().into_iter().skip_while(|token| token.to_string() != "fn").skip(1);
    match tokens.next() {
        Some(TokenTree::Ident(name)) => Some(name),
        _ => None,
    }
}
