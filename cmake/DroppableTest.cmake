# droppable_test(NAME name SOURCES file... [LIBS library...] [ARGS argument...] [TIMEOUT seconds] [LABELS label...])
#
# A test program on Check, built as `name` and registered with ctest under that name. It gets test-support and Check; LIBS is what
# it tests. Exit 77 is a skip, which must be listed in tests/expected-skips. The folder is a label by itself (unit, ...);
# others that mean something:
#   threads   more than one thread: the tsan preset runs these and only these
#   timing    measures time: never runs beside another test
#   slow      more than a few seconds: left out by `./run test --quick`
#   no-asan   makes no sense under AddressSanitizer, say why beside it
function(droppable_test)
    cmake_parse_arguments(PARSE_ARGV 0 arg "" "NAME;TIMEOUT" "SOURCES;LIBS;ARGS;LABELS")
    if(arg_UNPARSED_ARGUMENTS OR NOT arg_NAME OR NOT arg_SOURCES)
        message(FATAL_ERROR "droppable_test: NAME and SOURCES are needed, and nothing unknown: ${arg_UNPARSED_ARGUMENTS}")
    endif()
    if(NOT arg_TIMEOUT)
        set(arg_TIMEOUT 120) # of a busy machine
    endif()

    add_executable(${arg_NAME} ${arg_SOURCES})
    set_target_properties(${arg_NAME} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR})
    target_link_libraries(${arg_NAME} PRIVATE ${arg_LIBS} test-support PkgConfig::check Threads::Threads)
    droppable_target(${arg_NAME})

    add_test(NAME ${arg_NAME} COMMAND ${arg_NAME} ${arg_ARGS})
    cmake_path(GET CMAKE_CURRENT_SOURCE_DIR FILENAME folder)
    # Tests that start the service find its programs and the library's sources by these.
    set(environment
        "DROPPABLE_TEST_BINDIR=${PROJECT_BINARY_DIR}/bin"
        "DROPPABLE_TEST_SOURCEDIR=${PROJECT_SOURCE_DIR}"
        "ASAN_OPTIONS=detect_stack_use_after_return=1:strict_string_checks=1"
        "UBSAN_OPTIONS=print_stacktrace=1"
        "TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1"
    )
    set_tests_properties(
        ${arg_NAME}
        PROPERTIES TIMEOUT ${arg_TIMEOUT}
                   SKIP_RETURN_CODE 77
                   LABELS "${folder};${arg_LABELS}"
                   ENVIRONMENT "${environment}"
    )
    if("timing" IN_LIST arg_LABELS)
        set_tests_properties(${arg_NAME} PROPERTIES RUN_SERIAL TRUE)
    endif()
endfunction()

# droppable_check(NAME name COMMAND program argument... [TIMEOUT seconds])
#
# A check of the source tree, which gives the same answer in every preset: label lint.
function(droppable_check)
    cmake_parse_arguments(PARSE_ARGV 0 arg "" "NAME;TIMEOUT" "COMMAND")
    if(NOT arg_TIMEOUT)
        set(arg_TIMEOUT 120) # of a busy machine
    endif()
    add_test(NAME ${arg_NAME} COMMAND ${arg_COMMAND})
    set_tests_properties(${arg_NAME} PROPERTIES TIMEOUT ${arg_TIMEOUT} SKIP_RETURN_CODE 77 LABELS lint)
endfunction()
