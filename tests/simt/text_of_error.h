// What C functions of the test libraries return: "" or the text of the error.
#pragma once
#include <exception>
#include <string>

// One of each OS thread: thread-local variables of a library that simt is in are scarce (block.cpp).
inline std::string& error_text() {
  static thread_local std::string text;
  return text;
}

template <class Body>
const char* text_of_error(Body body) {
  error_text().clear();
  try {
    body();
  } catch (const std::exception& error) {
    error_text() = error.what();
  }
  return error_text().c_str();
}
